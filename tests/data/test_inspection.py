"""A folder inspected: which images show the same casting, and what is wrong with them."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from castings_pictures import photographs, plate, pose, posed

from zdm_ml.data.archive import Staged
from zdm_ml.data.discovery import find_images
from zdm_ml.data.images import Grey
from zdm_ml.data.inspection import Inspection, inspect_castings
from zdm_ml.data.issues import LABEL_CONFLICT, MIXED_LABEL, UNDECODABLE, has_issue
from zdm_ml.data.manifest import Row
from zdm_ml.errors import DataError
from zdm_ml.params import AuditParams

PARAMS = AuditParams(max_pixels=1_000_000, part_pattern=None)
PARTS, VIEWS = 6, 4


def write(folder: Path, path: str, image: Grey) -> None:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(cv2.imencode(".jpeg", image)[1].tobytes())


def inspect(folder: Path, **known: Mapping[str, str]) -> Inspection:
    return inspect_castings(folder, find_images(folder), PARAMS, **known)


def path_of(part: int, view: int) -> str:
    """The views of a casting are scattered over the folder."""
    return f"{'test' if view == 0 else 'train'}/ok_front/cast_{view}_{part * 7 % 11}.jpeg"


def parts_of(rows: Iterable[Row]) -> set[frozenset[str]]:
    """The paths of each part."""
    members = defaultdict(set)
    for row in rows:
        members[row.part].add(row.path)
    return {frozenset(paths) for paths in members.values()}


def by_path(found: Inspection) -> dict[str, Row]:
    return {row.path: row for row in found.rows}


@pytest.fixture(scope="module")
def castings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of six castings."""
    folder = tmp_path_factory.mktemp("inspected")
    for part, views in enumerate(photographs(PARTS, VIEWS)):
        for view, image in enumerate(views):
            write(folder, path_of(part, view), image)
    return folder


@pytest.fixture(scope="module")
def found(castings: Path) -> Inspection:
    return inspect(castings)


@pytest.fixture
def copy(castings: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(castings, tmp_path / "copy"))


def test_parts_are_the_castings(found: Inspection) -> None:
    truth = {frozenset(path_of(part, view) for view in range(VIEWS)) for part in range(PARTS)}

    assert parts_of(found.rows) == truth
    assert {row.identity for row in found.rows} == {"ring"}
    assert not found.contradictions


def test_every_image_names_a_sibling_and_how_sure_it_is(found: Inspection) -> None:
    rows = by_path(found)

    assert [row.path for row in found.rows] == sorted(rows)
    assert all(rows[row.nearest].part == row.part for row in found.rows)
    assert found.threshold is not None
    assert all(row.similarity > found.threshold.value for row in found.rows)
    assert all(0.5 <= row.confidence <= 1 for row in found.rows)
    assert found.features.keys() == rows.keys()


def test_two_inspections_agree(castings: Path, found: Inspection) -> None:
    again = inspect(castings)

    assert again.rows == found.rows
    assert again.suspects == found.suspects


def test_progress_ends_with_all_images(castings: Path) -> None:
    steps: list[tuple[int, int]] = []

    inspect_castings(
        castings, find_images(castings), PARAMS, progress=lambda *step: steps.append(step)
    )

    assert steps[-1] == (PARTS * VIEWS, PARTS * VIEWS)


def test_a_known_part_wins_and_its_unnamed_siblings_join_it(
    castings: Path, found: Inspection
) -> None:
    rows = by_path(inspect(castings, known={path_of(2, 1): "serial-2"}))

    assert {rows[path_of(2, view)].part for view in range(VIEWS)} == {"serial-2"}
    assert (rows[path_of(2, 1)].identity, rows[path_of(2, 1)].confidence) == ("known", 1.0)
    assert rows[path_of(2, 0)].identity == "ring"
    assert rows[path_of(3, 0)].part == by_path(found)[path_of(3, 0)].part


def test_known_parts_that_look_like_one_casting_are_reported(castings: Path) -> None:
    first, second = path_of(4, 0), path_of(4, 3)

    inspected = inspect(castings, known={first: "a", second: "b", path_of(5, 0): "c"})

    rows, (contradiction,) = by_path(inspected), inspected.contradictions
    assert (rows[first].part, rows[second].part) == ("a", "b")
    assert (contradiction.path, contradiction.part) == (first, "a")
    assert (contradiction.other_path, contradiction.other_part) == (second, "b")
    assert inspected.threshold is not None
    assert contradiction.similarity > inspected.threshold.value / 2


def test_remembered_parts_keep_their_ids_when_images_are_added(
    copy: Path, found: Inspection
) -> None:
    for view in (0, 2):
        image = posed(photographs(PARTS, VIEWS)[1][view], pose(turn=2.0, mirrored=True, zoom=0.9))
        write(copy, f"train/ok_front/added_{view}.jpeg", image)
    remembered = {row.sha256: row.part for row in found.rows}

    rows = by_path(inspect(copy, remembered=remembered))

    before = by_path(found)
    assert all(rows[path].part == before[path].part for path in before)
    assert rows["train/ok_front/added_0.jpeg"].part == before[path_of(1, 0)].part
    assert rows["train/ok_front/added_2.jpeg"].identity == "ring"
    assert rows[path_of(1, 0)].identity == "remembered"


def test_an_image_that_does_not_decode_has_a_row_and_a_part_of_its_own(copy: Path) -> None:
    spoiled, named = path_of(0, 1), path_of(0, 2)
    (copy / spoiled).write_bytes((copy / spoiled).read_bytes()[:-2000])
    (copy / named).write_bytes(b"")

    inspected = inspect(copy, known={named: "serial-0"})

    rows = by_path(inspected)
    assert len(rows) == PARTS * VIEWS
    assert rows[spoiled].issues == rows[named].issues == UNDECODABLE
    assert (rows[spoiled].nearest, rows[spoiled].width) == ("", 0)
    assert [row.part for row in inspected.rows].count(rows[spoiled].part) == 1
    assert (rows[named].part, rows[named].identity) == ("serial-0", "known")
    assert inspected.features.keys() == rows.keys() - {spoiled, named}


def test_a_missing_file_is_named(copy: Path) -> None:
    files = find_images(copy)
    (copy / path_of(0, 1)).unlink()

    with pytest.raises(DataError, match=path_of(0, 1)):
        inspect_castings(copy, files, PARAMS)


def test_a_casting_with_both_labels_is_marked(copy: Path) -> None:
    (copy / "train/def_front").mkdir()
    (copy / path_of(1, 1)).rename(copy / "train/def_front/moved.jpeg")
    shutil.copy(copy / path_of(3, 1), copy / "train/def_front/twin.jpeg")

    rows = by_path(inspect(copy))

    mixed = {row.part for row in rows.values() if has_issue(row, MIXED_LABEL)}
    assert mixed == {
        rows["train/def_front/moved.jpeg"].part,
        rows["train/def_front/twin.jpeg"].part,
    }
    assert all(has_issue(row, MIXED_LABEL) == (row.part in mixed) for row in rows.values())
    conflicts = {path for path, row in rows.items() if has_issue(row, LABEL_CONFLICT)}
    assert conflicts == {path_of(3, 1), "train/def_front/twin.jpeg"}


def test_parts_that_are_not_round_are_found_by_their_outline(tmp_path: Path) -> None:
    for part in range(8):
        for view in range(3):
            rng = np.random.default_rng([part, view])
            matrix = pose(
                turn=rng.uniform(0, 6.28),
                mirrored=bool(rng.integers(2)),
                zoom=rng.uniform(0.85, 1.15),
                shear=rng.uniform(-0.1, 0.1),
            )
            shift = (float(rng.uniform(-8, 8)), float(rng.uniform(-8, 8)))
            path = f"train/ok_front/bar_{view}_{part}.jpeg"
            write(tmp_path, path, posed(plate(part), matrix, shift))

    rows = inspect(tmp_path).rows

    assert {row.identity for row in rows} == {"outline"}
    assert parts_of(rows) == {
        frozenset(f"train/ok_front/bar_{view}_{part}.jpeg" for view in range(3))
        for part in range(8)
    }


@pytest.mark.integration
def test_nearly_every_shipped_test_casting_was_photographed_for_training_too(
    real_castings: tuple[Staged, Path],
) -> None:
    _, folder = real_castings

    found, again = inspect(folder), inspect(folder)

    train = {row.part for row in found.rows if row.shipped_split == "train"}
    test = [row for row in found.rows if row.shipped_split == "test"]
    assert sum(row.part in train for row in test) >= 0.98 * len(test)
    assert {row.identity for row in found.rows} <= {"ring", "outline", "alone"}
    assert again.rows == found.rows
