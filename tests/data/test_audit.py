"""The audit: a row per image, and every fault of a dataset counted."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import cv2
import pytest

from zdm_ml.data.archive import Staged
from zdm_ml.data.audit import Audit, audit_images
from zdm_ml.data.discovery import find_images
from zdm_ml.data.known_parts import known_parts, read_parts_files
from zdm_ml.data.manifest import read_manifest, write_manifest
from zdm_ml.data.synthetic import make_synthetic
from zdm_ml.errors import DataError
from zdm_ml.params import AuditParams

PARAMS = AuditParams(max_pixels=1_000_000, part_pattern=None)
NEAR = "train/def_front/saved_again.jpeg"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 images of twelve castings, with parts.csv."""
    folder = tmp_path_factory.mktemp("audit") / "castings"
    make_synthetic(folder, parts=12, views=3, seed=5, size=160)
    return folder


@pytest.fixture(scope="module")
def spoiled(rendered: Path, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """An audit of the castings with one fault of each kind planted, each on another casting."""
    folder = Path(shutil.copytree(rendered, tmp_path_factory.mktemp("spoiled") / "castings"))
    with (folder / "parts.csv").open(newline="") as file:
        parts = {row["path"]: row["part"] for row in csv.DictReader(file)}
    good, bad = _one_of_each(parts, "train/ok_front"), _one_of_each(parts, "train/def_front")

    parts[min(path for path in parts if path.startswith("test/ok_front"))] = parts[good[0]]
    for source, target in {
        good[1]: "test/ok_front/identical.jpeg",
        good[3]: "train/def_front/twin.jpeg",
    }.items():
        shutil.copy(folder / source, folder / target)
        parts[target] = parts[source]
    (folder / good[2]).rename(folder / "train/def_front/moved.jpeg")
    parts["train/def_front/moved.jpeg"] = parts.pop(good[2])
    (folder / bad[0]).write_bytes((folder / bad[0]).read_bytes()[:-2000])
    picture = cv2.imread(str(folder / bad[1]), 0)
    cv2.imwrite(str(folder / NEAR), picture, [cv2.IMWRITE_JPEG_QUALITY, 70])
    parts[NEAR] = parts[bad[1]]
    picture = cv2.imread(str(folder / bad[2]), 0)
    cv2.imwrite(str(folder / bad[2]), cv2.resize(picture, (120, 120)))

    lines = ["path,part", *(f"{path},{part}" for path, part in parts.items())]
    (folder / "parts.csv").write_text("\n".join(lines) + "\n")
    return _audited(folder)


@pytest.fixture(scope="module")
def clean(rendered: Path) -> Audit:
    return _audited(rendered)


def _audited(folder: Path) -> Audit:
    files = find_images(folder)
    known = known_parts(files, read_parts_files(folder, files), None)
    return audit_images(folder, files, PARAMS, known=known.parts, warnings=known.warnings)


def _one_of_each(parts: dict[str, str], where: str) -> list[str]:
    """Return the first image of each casting in a folder."""
    first: dict[str, str] = {}
    for path in sorted(path for path in parts if path.startswith(where)):
        first.setdefault(parts[path], path)
    return sorted(first.values())


def test_a_clean_dataset_has_castings_and_no_faults(clean: Audit) -> None:
    report = clean.report

    assert (report["images"], report["parts"]) == (36, 12)
    assert (report["parts_ok"], report["parts_defect"], report["parts_mixed"]) == (6, 6, 0)
    assert report["effective_sample_size"] == {"ok": 6, "defect": 6}
    assert report["images_per_part"] == {"min": 3, "median": 3, "max": 3}
    assert report["per_split"] == {
        "train": {"ok": 15, "defect": 15},
        "test": {"ok": 3, "defect": 3},
    }
    faults = ("quarantined", "exact_duplicates", "near_duplicates", "identical_across_splits")
    assert [report[fault] for fault in (*faults, "label_conflicts")] == [0] * 5
    assert (report["test_images"], report["test_images_with_train_sibling"]) == (6, 0)
    assert report["sizes"] == {"160x160": 36}
    assert report["identity"]["known"] == 36


def test_the_probes_are_in_the_report_per_image_and_per_casting(clean: Audit) -> None:
    for name in ("brightness", "contrast", "background"):
        assert 0.5 <= clean.report[f"{name}_auc"] <= 1
        assert 0.5 <= clean.report[f"{name}_auc_per_part"] <= 1


def test_every_image_belongs_to_a_lighting_cluster(clean: Audit) -> None:
    clusters = clean.report["lighting"]

    assert {row.lighting for row in clean.rows} == set(clusters)
    assert sum(cluster["images"] for cluster in clusters.values()) == 36
    levels = [cluster["mean_grey"] for cluster in clusters.values()]
    assert levels == sorted(levels)


def test_two_audits_agree(rendered: Path, clean: Audit) -> None:
    again = _audited(rendered)

    assert again.rows == clean.rows
    assert again.report == clean.report


def test_test_images_of_castings_in_train_are_a_leak(spoiled: Audit) -> None:
    report = spoiled.report

    assert report["test_images_with_train_sibling"] == 2
    assert report["leakage"] == {
        "identical": 1,
        "siblings": 2,
        "parts": 2,
        "share_of_test": round(2 / 7, 4),
    }
    assert report["verdict"] == "red"
    assert any("split.protocol: grouped" in text for text in report["suggestions"])


def test_shared_bytes_are_counted(spoiled: Audit) -> None:
    report = spoiled.report

    assert (report["images"], report["exact_duplicates"], report["distinct_images"]) == (39, 2, 37)
    assert report["identical_across_splits"] == 1


def test_castings_with_both_labels_are_named_with_their_images(spoiled: Audit) -> None:
    report = spoiled.report

    assert report["label_conflicts"] == report["parts_mixed"] == 2
    assert report["parts"] == report["parts_ok"] + report["parts_defect"] + report["parts_mixed"]
    castings = report["label_conflict_images"]["castings"].values()
    assert sorted(images["defect"] for images in castings) == [
        ["train/def_front/moved.jpeg"],
        ["train/def_front/twin.jpeg"],
    ]
    assert sorted(len(images["ok"]) for images in castings) == [2, 3]


def test_one_file_under_both_labels_is_listed(spoiled: Audit) -> None:
    ((twin, source),) = spoiled.report["label_conflict_images"]["same_bytes"]

    assert twin == "train/def_front/twin.jpeg"
    assert source.startswith("train/ok_front/")


def test_a_broken_image_is_a_row_with_an_issue(spoiled: Audit) -> None:
    (broken,) = spoiled.report["undecodable_images"]

    row = next(row for row in spoiled.rows if row.path == broken)
    assert "undecodable" in row.issues
    assert (row.width, row.lighting) == (0, "")
    assert spoiled.report["quarantined"] == 1
    assert len(spoiled.rows) == spoiled.report["images"]


def test_the_same_picture_saved_anew_is_a_near_duplicate(spoiled: Audit) -> None:
    (group,) = spoiled.report["near_duplicate_images"]

    assert spoiled.report["near_duplicates"] == 1
    assert NEAR in group and len(group) == 2


def test_odd_sizes_are_named(spoiled: Audit) -> None:
    odd = spoiled.report["odd_sizes"]

    assert (odd["usual"], odd["images"]) == ("160x160", 1)
    assert odd["examples"][0].startswith("train/def_front/")


def test_rows_survive_the_manifest_file(clean: Audit, tmp_path: Path) -> None:
    write_manifest(tmp_path / "audit.csv", clean.rows)

    assert read_manifest(tmp_path / "audit.csv") == clean.rows


def test_images_are_found_at_any_depth_and_by_their_path(dataset: Path, tmp_path: Path) -> None:
    deep = tmp_path / "root/some/where"
    shutil.copytree(dataset, deep)
    for other in ("casting_512x512", ".hidden", "__MACOSX"):
        shutil.copytree(dataset, tmp_path / "root" / other)

    files = find_images(tmp_path / "root")

    assert len(files) == 24
    assert files["some/where/train/def_front/cast_0.jpeg"] == "train/def_front/cast_0.jpeg"


def test_one_side_alone_of_pictures_that_are_no_castings_can_be_audited(dataset: Path) -> None:
    shutil.rmtree(dataset / "test")

    report = _audited(dataset).report

    assert report["images"] == 12
    assert report["parts"] >= 1
    assert (report["test_images"], report["leakage"]["share_of_test"]) == (0, None)


@pytest.mark.parametrize(
    ("pattern", "problem"), [("*/*/*", "holds no castings"), ("*/ok_front/*", "one class only")]
)
def test_a_folder_without_both_classes_says_so(pattern: str, problem: str, dataset: Path) -> None:
    for file in list(dataset.glob(pattern)):
        file.unlink()

    with pytest.raises(DataError, match=problem) as caught:
        _audited(dataset)

    assert "train/ and test/" in caught.value.hint


def test_a_class_without_one_image_that_decodes_is_refused(dataset: Path) -> None:
    for file in dataset.glob("*/ok_front/*"):
        file.write_bytes(b"broken")

    with pytest.raises(DataError, match="without what does not decode has one class only"):
        _audited(dataset)


def test_a_dead_link_is_named(dataset: Path, tmp_path: Path) -> None:
    (dataset / "train/ok_front/gone.jpeg").symlink_to(tmp_path / "nowhere")

    with pytest.raises(DataError, match=r"gone\.jpeg cannot be read"):
        _audited(dataset)


@pytest.mark.integration
def test_the_real_castings_leak(real_castings: tuple[Staged, Path]) -> None:
    _, folder = real_castings

    report = _audited(folder).report

    assert report["images"] == 4815
    assert report["identical_across_splits"] == 34
    assert report["leakage"]["share_of_test"] >= 0.98
    assert report["brightness_auc"] > 0.85
    assert report["parts_mixed"] >= 1
