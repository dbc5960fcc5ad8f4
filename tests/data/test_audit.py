"""The audit: a row per image, and every fault of a dataset counted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from zdm_ml.data.archive import Staged
from zdm_ml.data.audit import audit_images, has_issue
from zdm_ml.data.images import decode_grey
from zdm_ml.data.manifest import read_manifest, write_manifest
from zdm_ml.data.splits import split_rows
from zdm_ml.errors import DataError
from zdm_ml.params import AuditParams, SplitParams

PARAMS = AuditParams(max_pixels=1_000_000)


def test_a_row_says_what_the_image_is(dataset: Path) -> None:
    path = "train/def_front/cast_0.jpeg"
    grey = decode_grey(dataset / path, max_pixels=None)

    rows, _ = audit_images(dataset, PARAMS)

    row = next(row for row in rows if row.path == path)
    assert row.sha256 == hashlib.sha256((dataset / path).read_bytes()).hexdigest()
    assert row.part == row.sha256
    assert (row.label, row.shipped_split, row.split, row.fold) == ("defect", "train", "", -1)
    assert (row.width, row.height) == (32, 32)
    assert row.mean_grey == pytest.approx(grey.mean(), abs=1e-3)
    assert (row.lighting, row.issues) == ("", "")


def test_a_clean_dataset_has_counts_and_no_issues(dataset: Path) -> None:
    rows, report = audit_images(dataset, PARAMS)

    assert not any(row.issues for row in rows)
    assert report["images"] == report["distinct_images"] == 24
    assert report["per_split"] == {
        "train": {"ok": 6, "defect": 6},
        "test": {"ok": 6, "defect": 6},
    }
    faults = ("undecodable", "exact_duplicates", "identical_across_splits", "label_conflicts")
    assert [report[fault] for fault in faults] == [0, 0, 0, 0]
    assert report["sizes"] == {"32x32": 24}


def test_shared_bytes_are_marked_on_every_file_that_holds_them(
    dataset: Path, jpeg: Callable[[int], bytes]
) -> None:
    twin, conflict = jpeg(100), jpeg(101)
    (dataset / "train/ok_front/twin_a.jpeg").write_bytes(twin)
    (dataset / "train/ok_front/twin_b.jpeg").write_bytes(twin)
    (dataset / "train/ok_front/conflict.jpeg").write_bytes(conflict)
    (dataset / "test/def_front/conflict.jpeg").write_bytes(conflict)

    rows, report = audit_images(dataset, PARAMS)

    issues = {row.path: row.issues for row in rows if row.issues}
    everything = "duplicate;identical_across_splits;label_conflict"
    assert issues == {
        "train/ok_front/twin_a.jpeg": "duplicate",
        "train/ok_front/twin_b.jpeg": "duplicate",
        "train/ok_front/conflict.jpeg": everything,
        "test/def_front/conflict.jpeg": everything,
    }
    assert report["exact_duplicates"] == 2
    assert report["identical_across_splits"] == 1
    assert report["label_conflicts"] == 1


def test_a_broken_image_is_a_row_with_an_issue(dataset: Path) -> None:
    path = dataset / "train/ok_front/cast_1.jpeg"
    path.write_bytes(path.read_bytes()[:-300])
    Image.new("L", (2000, 2000)).save(dataset / "train/ok_front/large.png")

    rows, report = audit_images(dataset, PARAMS)

    broken = {row.path for row in rows if has_issue(row, "undecodable")}
    assert broken == {"train/ok_front/cast_1.jpeg", "train/ok_front/large.png"}
    assert (report["images"], report["undecodable"]) == (25, 2)


def test_the_real_castings_leak_byte_identical_images_from_train_to_test(
    real_castings: tuple[Staged, Path],
) -> None:
    _, folder = real_castings

    rows, report = audit_images(folder, AuditParams(max_pixels=25_000_000))
    _, split = split_rows(rows, SplitParams(0.1, 0.1, None, None), seed=20)

    assert report["images"] == 4815
    assert report["identical_across_splits"] == 34
    assert report["label_conflicts"] == 0
    assert split["dropped"]["duplicates_of_test"] == 34


def test_rows_survive_the_manifest_file(dataset: Path, tmp_path: Path) -> None:
    rows, _ = audit_images(dataset, PARAMS)

    write_manifest(tmp_path / "audit.csv", rows)

    assert read_manifest(tmp_path / "audit.csv") == rows


def test_progress_reaches_every_image(dataset: Path) -> None:
    seen: list[tuple[int, int]] = []

    audit_images(dataset, PARAMS, progress=lambda done, total: seen.append((done, total)))

    assert seen[-1] == (24, 24)


def test_a_missing_folder_says_how_to_import(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing") as caught:
        audit_images(tmp_path / "castings", PARAMS)

    assert "zdm data import" in caught.value.hint


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("*/*/*", "holds no castings"),
        ("*/ok_front/*", "one class only"),
        ("train/*/*", "no images in train/def_front, train/ok_front"),
        ("*/*/cast_1[0-5].jpeg", "has 18 usable images"),
    ],
)
def test_an_incomplete_folder_says_what_is_missing(
    pattern: str, problem: str, dataset: Path
) -> None:
    for file in list(dataset.glob(pattern)):
        file.unlink()

    with pytest.raises(DataError, match=problem):
        audit_images(dataset, PARAMS)


def test_a_dead_link_is_named(dataset: Path, tmp_path: Path) -> None:
    (dataset / "train/ok_front/gone.jpeg").symlink_to(tmp_path / "nowhere")

    with pytest.raises(DataError, match=r"gone\.jpeg cannot be read"):
        audit_images(dataset, PARAMS)


def test_a_class_without_one_image_that_decodes_is_refused(dataset: Path) -> None:
    for file in (dataset / "test/ok_front").iterdir():
        file.write_bytes(b"broken")

    with pytest.raises(DataError, match="no images in test/ok_front"):
        audit_images(dataset, PARAMS)
