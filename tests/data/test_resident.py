"""Resident arrays: decoded once for all, never wrong, and never in the way."""

from __future__ import annotations

import hashlib
import logging
import os
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from castings_rows import image
from PIL import Image

from zdm_ml.data import resident
from zdm_ml.data.images import ImageRefused, read_stack
from zdm_ml.data.manifest import Row, write_manifest
from zdm_ml.data.resident import resident_array
from zdm_ml.errors import DataError

SIDE = 15
"""Odd, so that no image is a whole number of the checksum's words."""


def save_castings(folder: Path, count: int, side: int = SIDE, kind: str = "jpeg") -> list[Row]:
    levels = np.random.default_rng(8).integers(0, 256, (count, side, side), dtype=np.uint8)
    rows = []
    for number in range(count):
        row = image("casting", number, "ok")
        path = folder / row.path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels[number]).save(path, kind)
        rows.append(replace(row, sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    return rows


def expected(folder: Path, rows: Sequence[Row], size: int = SIDE) -> np.ndarray:
    return read_stack(folder, [row.path for row in rows], size)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "castings"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "resident"


@pytest.fixture
def rows(folder: Path) -> list[Row]:
    return save_castings(folder, 40)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images that were decoded, counted by call."""
    counts = []

    def count(folder: Path, paths: Sequence[str], size: int, **options: Sequence[str]) -> object:
        counts.append(len(paths))
        return read_stack(folder, paths, size, **options)

    monkeypatch.setattr(resident, "read_stack", count)
    return counts


def arrays(cache: Path) -> list[Path]:
    return sorted(cache.glob("*.npy"))


def test_the_array_holds_the_images_in_the_rows_order(
    folder: Path, rows: list[Row], cache: Path
) -> None:
    array = resident_array(folder, rows[::-1], SIDE, cache)

    assert type(array) is np.ndarray
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, expected(folder, rows)[::-1])


def test_the_array_cannot_be_written_to(folder: Path, rows: list[Row], cache: Path) -> None:
    array = resident_array(folder, rows, SIDE, cache)

    with pytest.raises(ValueError, match="read-only"):
        array[0] = 0


def test_numpy_reads_the_file_as_the_same_array(folder: Path, rows: list[Row], cache: Path) -> None:
    array = resident_array(folder, rows, SIDE, cache)

    np.testing.assert_array_equal(np.load(arrays(cache)[0]), array)


def test_images_are_decoded_once_whatever_their_names(
    folder: Path, rows: list[Row], cache: Path, decoded: list[int]
) -> None:
    first = resident_array(folder, rows, SIDE, cache)
    elsewhere = [replace(row, path=f"gone/{row.path}", split="test") for row in rows]
    second = resident_array(folder, elsewhere, SIDE, cache)

    assert decoded == [40]
    np.testing.assert_array_equal(second, first)


@pytest.mark.parametrize("change", ["order", "size", "selection", "decoder"])
def test_other_images_sizes_or_decoders_get_another_array(
    folder: Path, rows: list[Row], cache: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    resident_array(folder, rows, SIDE, cache)
    if change == "decoder":
        monkeypatch.setattr(resident, "DECODER", resident.DECODER + 1)
    chosen = {"order": rows[::-1], "selection": rows[1:]}.get(change, rows)
    size = 8 if change == "size" else SIDE

    array = resident_array(folder, chosen, size, cache)

    assert len(arrays(cache)) == 2
    np.testing.assert_array_equal(array, expected(folder, chosen, size))


def test_no_rows_give_an_empty_array_and_no_file(folder: Path, cache: Path) -> None:
    assert resident_array(folder, [], SIDE, cache).shape == (0, SIDE, SIDE)
    assert not cache.exists()


def test_progress_counts_images_up_to_all(folder: Path, rows: list[Row], cache: Path) -> None:
    told = []

    resident_array(folder, rows, SIDE, cache, progress=lambda *counts: told.append(counts))

    assert told == [(40, 40)]


def test_a_set_is_decoded_without_being_in_memory_as_a_whole(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = save_castings(folder, 64, side=256, kind="png")
    monkeypatch.setattr(resident, "BLOCK_BYTES", 8 * 256 * 256)

    tracemalloc.start()
    array = resident_array(folder, large, 256, cache)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 0.5 * array.nbytes
    np.testing.assert_array_equal(array, expected(folder, large, 256))


CHILD = """
import sys, time
from pathlib import Path
from zdm_ml.data import resident
from zdm_ml.data.manifest import read_manifest

folder, manifest, cache, log = map(Path, sys.argv[1:])
read_stack = resident.read_stack

def slowly(*arguments, **options):
    with log.open("a") as file:
        file.write("decoded\\n")
    time.sleep(1)
    return read_stack(*arguments, **options)

resident.read_stack = slowly
rows = read_manifest(manifest)
with log.open("a") as file:
    file.write("started\\n")
while log.read_text().count("started") < 3:
    time.sleep(0.01)
print(int(resident.resident_array(folder, rows, 15, cache).sum()))
"""


def test_processes_that_start_at_once_share_one_decoding(
    folder: Path, rows: list[Row], cache: Path, tmp_path: Path
) -> None:
    write_manifest(tmp_path / "manifest.csv", rows)
    log = tmp_path / "log"
    command = [sys.executable, "-c", CHILD, folder, tmp_path / "manifest.csv", cache, log]

    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = [int(child.communicate(timeout=60)[0]) for child in children]

    assert sums == [int(expected(folder, rows).sum())] * 3
    assert log.read_text().split().count("decoded") == 1


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "too long": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "header": lambda path: flip(path, 20),
    "first pixel": lambda path: flip(path, 128),
    "pixel": lambda path: flip(path, 5_000),
    "last pixel": lambda path: flip(path, -33),
    "checksum": lambda path: flip(path, -1),
    "zeros": lambda path: path.write_bytes(path.read_bytes()[:4_096].ljust(path.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_array_is_made_anew_with_a_warning(
    folder: Path,
    rows: list[Row],
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], object],
) -> None:
    resident_array(folder, rows, SIDE, cache)
    damage(arrays(cache)[0])

    array = resident_array(folder, rows, SIDE, cache)

    assert "is damaged: its images are decoded again" in caplog.text
    np.testing.assert_array_equal(array, expected(folder, rows))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the kernel refuse to write more into a file, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_array_in_memory(
    folder: Path, rows: list[Row], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with files_of_at_most(2_000):
        array = resident_array(folder, rows, SIDE, cache)

    assert "its images are decoded into memory" in caplog.text
    assert not array.flags.writeable
    np.testing.assert_array_equal(array, expected(folder, rows))
    assert [path.name for path in cache.iterdir()] in ([], ["resident.lock"])


def test_a_cache_that_cannot_be_a_folder_leaves_the_array_in_memory(
    folder: Path, rows: list[Row], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("in the way")

    array = resident_array(folder, rows, SIDE, cache)

    assert "its images are decoded into memory" in caplog.text
    np.testing.assert_array_equal(array, expected(folder, rows))


@pytest.mark.parametrize("fault", ["missing", "undecodable", "another"])
def test_an_image_that_is_wrong_is_named_and_nothing_is_kept(
    folder: Path, rows: list[Row], cache: Path, fault: str
) -> None:
    path = folder / rows[7].path
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(
            b"nothing" if fault == "undecodable" else (folder / rows[8].path).read_bytes()
        )
    if fault == "undecodable":
        rows[7] = replace(rows[7], sha256=hashlib.sha256(b"nothing").hexdigest())

    with pytest.raises(DataError, match=path.name) as caught:
        resident_array(folder, rows, SIDE, cache)

    assert isinstance(caught.value, ImageRefused) == (fault == "undecodable")
    assert [path.name for path in cache.iterdir()] in ([], ["resident.lock"])


def used(path: Path, hours_ago: float) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"pixels")
    then = time.time() - 3600 * hours_ago
    os.utime(path, (then, then))
    return path


def test_the_arrays_longest_unused_make_room(folder: Path, rows: list[Row], cache: Path) -> None:
    others = [used(cache / f"{hours}.npy", hours) for hours in (2, 3, 4, 5, 6)]

    resident_array(folder, rows, SIDE, cache)

    assert [path.exists() for path in others] == [True, True, True, False, False]
    assert len(arrays(cache)) == 4


def test_arrays_of_the_last_hour_stay_however_many(
    folder: Path, rows: list[Row], cache: Path
) -> None:
    others = [used(cache / f"{number}.npy", 0.5) for number in range(6)]

    resident_array(folder, rows, SIDE, cache)

    assert all(path.exists() for path in others)


def test_to_use_an_array_is_to_keep_it(folder: Path, rows: list[Row], cache: Path) -> None:
    resident_array(folder, rows, SIDE, cache)
    path = arrays(cache)[0]
    used_before = time.time() - 10 * 3600
    os.utime(path, (used_before, used_before))

    resident_array(folder, rows, SIDE, cache)

    assert time.time() - path.stat().st_mtime < 60


def test_what_a_killed_process_left_is_cleared_away(
    folder: Path, rows: list[Row], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    left = used(cache / ".0123.npy.abc.tmp", 0)

    resident_array(folder, rows, SIDE, cache)

    assert not left.exists()
    assert "decoding 40 images at 15 px" in caplog.text
