"""Known castings: parts.csv and serial numbers in file names."""

from __future__ import annotations

from pathlib import Path

import pytest

from zdm_ml.data.known_parts import Known, known_parts, parts_file_places, read_parts_files
from zdm_ml.errors import ConfigError, DataError

A, B = "train/ok_front/SN1_a.png", "test/def_front/SN2_b.png"
FLAT = {A: A, B: B}
DEEP = {f"set/{path}": path for path in FLAT}


def _known(folder: Path, files: dict[str, str], pattern: str | None = None) -> Known:
    return known_parts(files, read_parts_files(folder, files), pattern)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_parts_csv_names_castings_and_leaves_the_others_open(tmp_path: Path) -> None:
    _write(tmp_path / "parts.csv", f"path,part,kinds\n{A},blade-7,burr\n")

    assert _known(tmp_path, FLAT) == Known({A: "blade-7"}, {A: "burr"}, [])


@pytest.mark.parametrize("place", ["parts.csv", "set/parts.csv"])
def test_parts_csv_is_found_at_the_root_and_beside_train_and_test(
    place: str, tmp_path: Path
) -> None:
    _write(tmp_path / place, f"path,part\n{A},blade-7\n")

    assert _known(tmp_path, DEEP) == Known({f"set/{A}": "blade-7"}, {}, [])
    assert place in parts_file_places(DEEP)


def test_what_a_spreadsheet_saves_is_read(tmp_path: Path) -> None:
    windows = A.replace("/", "\\")
    _write(tmp_path / "parts.csv", f"\ufeffpath;part\r\n.\\{windows}; blade-7 \r\n")

    assert _known(tmp_path, FLAT).parts == {A: "blade-7"}


def test_serial_numbers_fill_what_parts_csv_leaves_open(tmp_path: Path) -> None:
    _write(tmp_path / "parts.csv", f"path,part\n{A},blade-7\n")

    found = _known(tmp_path, FLAT, r"^(SN\d+)_")

    assert found == Known({A: "blade-7", B: "SN2"}, {}, [])


def test_names_without_a_serial_number_are_told(tmp_path: Path) -> None:
    found = _known(tmp_path, FLAT, r"^(SN1)_")
    (warning,) = found.warnings

    assert found.parts == {A: "SN1"}
    assert "1 of 2 file names" in warning and B in warning


def test_paths_that_are_no_images_are_told(tmp_path: Path) -> None:
    _write(tmp_path / "parts.csv", f"path,part\n{A},x\ngone.png,y\n")

    found = _known(tmp_path, FLAT)
    (warning,) = found.warnings

    assert found.parts == {A: "x"}
    assert "gone.png" in warning


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,id\n", "needs path and part"),
        ("", "needs path and part"),
        (f"path,part\n{A},\n", "line 2"),
        (f"path,part\n{A},{'x' * 200_000}\n", "field larger than"),
        (f"path,part\n{A},x\n{A},y\n", "line 3: .* is part 'y' and 'x'"),
    ],
)
def test_a_damaged_list_is_refused_with_its_line(text: str, problem: str, tmp_path: Path) -> None:
    _write(tmp_path / "parts.csv", text)

    with pytest.raises(DataError, match=problem):
        _known(tmp_path, FLAT)


@pytest.mark.parametrize("pattern", ["(", "SN[0-9]+"])
def test_a_pattern_without_a_group_is_refused(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="audit.part_pattern"):
        _known(tmp_path, FLAT, pattern)
