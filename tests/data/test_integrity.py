"""What a castings folder is checked for, and when a file is read again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zdm_ml.data import integrity
from zdm_ml.data.integrity import find_damage, verify
from zdm_ml.data.listing import Entry
from zdm_ml.errors import DataError
from zdm_ml.files import sha256_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty small files in a castings folder."""
    place = tmp_path / "castings" / "train" / "ok_front"
    place.mkdir(parents=True)
    for number in range(30):
        (place / f"cast_{number:02}.jpeg").write_bytes(bytes([number]) * 100)
    return tmp_path / "castings"


@pytest.fixture
def entries(folder: Path) -> list[Entry]:
    return [
        Entry(path.relative_to(folder).as_posix(), sha256_file(path), 100, path.stem, False, "")
        for path in folder.rglob("*.jpeg")
    ]


def image(folder: Path, number: int) -> Path:
    return folder / "train" / "ok_front" / f"cast_{number:02}.jpeg"


def name(number: int) -> str:
    return f"train/ok_front/cast_{number:02}.jpeg"


def test_a_whole_folder_passes(folder: Path, entries: list[Entry]) -> None:
    verify(folder, entries)


def test_every_kind_of_damage_is_told_apart(folder: Path, entries: list[Entry]) -> None:
    image(folder, 1).unlink()
    image(folder, 2).write_bytes(b"\2" * 40)
    image(folder, 3).write_bytes(b"\7" * 100)
    image(folder, 4).write_bytes(b"")
    image(folder, 99).write_bytes(b"new")

    damage = find_damage(folder, entries)

    assert damage.missing == (name(1),)
    assert damage.truncated == (name(2), name(4))
    assert damage.altered == (name(3),)
    assert damage.extra == (name(99),)
    assert set(damage.broken) == {name(1), name(2), name(3), name(4)}


def test_the_first_ten_files_are_named_and_the_others_counted(
    folder: Path, entries: list[Entry]
) -> None:
    for number in range(15):
        image(folder, number).unlink()

    with pytest.raises(DataError) as caught:
        verify(folder, entries)

    assert "15 missing" in caught.value.problem
    assert name(9) in caught.value.problem
    assert name(10) not in caught.value.problem
    assert "and 5 more" in caught.value.problem
    assert "zdm data checkout" in caught.value.hint


def test_files_of_an_operating_system_are_no_damage(folder: Path, entries: list[Entry]) -> None:
    (folder / "train" / ".DS_Store").write_bytes(b"x")
    (folder / "train" / "ok_front" / "Thumbs.db").write_bytes(b"x")

    verify(folder, entries)


def test_a_remembered_file_is_not_read_again(
    folder: Path, entries: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory.json"
    verify(folder, entries, memory=memory)
    read: list[Path] = []
    monkeypatch.setattr(
        integrity, "sha256_file", lambda path: read.append(path) or sha256_file(path)
    )
    os.utime(image(folder, 7), (1, 1))

    verify(folder, entries, memory=memory)

    assert read == [image(folder, 7)]


def test_a_change_after_the_last_check_is_found(
    folder: Path, entries: list[Entry], tmp_path: Path
) -> None:
    memory = tmp_path / "memory.json"
    verify(folder, entries, memory=memory)
    image(folder, 5).write_bytes(b"\6" * 100)

    damage = find_damage(folder, entries, memory=memory)
    again = find_damage(folder, entries, memory=memory)

    assert damage.altered == again.altered == (name(5),)


def test_what_is_remembered_counts_for_the_same_bytes_only(
    folder: Path, entries: list[Entry], tmp_path: Path
) -> None:
    """Another data version may have other bytes of the same size under the same path."""
    memory = tmp_path / "memory.json"
    verify(folder, entries, memory=memory)
    other = [Entry(e.path, "0" * 64, e.size, e.part, e.known, e.side) for e in entries[:1]]

    damage = find_damage(folder, other + entries[1:], memory=memory)

    assert damage.altered == (entries[0].path,)


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": [1', '{"a": ["x", 1, 2]}'])
def test_a_damaged_memory_remembers_nothing(
    text: str, folder: Path, entries: list[Entry], tmp_path: Path
) -> None:
    memory = tmp_path / "memory.json"
    memory.write_text(text)
    image(folder, 5).write_bytes(b"\6" * 100)

    assert find_damage(folder, entries, memory=memory).altered == (name(5),)
