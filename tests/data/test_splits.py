"""Laws of the split, and what it refuses."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zdm_ml.data.manifest import Label, Row
from zdm_ml.data.splits import split_rows
from zdm_ml.errors import DataError
from zdm_ml.params import SplitParams

LAW = settings(deadline=None, max_examples=40, derandomize=True)
PARAMS = SplitParams(val=0.1, calibration=0.2, train_limit=None, holdout_limit=None)


def row(number: int, *, label: Label, shipped: str, image: int, issues: str = "") -> Row:
    digest = f"{label}-{image}"
    return Row(
        path=f"{shipped}/{'def' if label == 'defect' else 'ok'}_front/{number:04d}.jpeg",
        sha256=digest,
        label=label,
        part=digest,
        shipped_split=shipped,
        split="",
        fold=-1,
        width=300,
        height=300,
        mean_grey=128.0,
        lighting="",
        issues=issues,
    )


def plain(images: int = 100) -> list[Row]:
    """Distinct images: three of four shipped as train, two of five defective."""
    return [
        row(
            number,
            label="defect" if number % 5 < 2 else "ok",
            shipped="test" if number % 4 == 0 else "train",
            image=number,
        )
        for number in range(images)
    ]


@st.composite
def datasets(draw: st.DrawFn) -> list[Row]:
    """Datasets full of exact duplicates, within and across the shipped splits."""
    count = draw(st.integers(40, 120))
    images = draw(st.lists(st.integers(0, 40), min_size=count, max_size=count))
    tests = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    core = plain(60)
    return core + [
        row(
            1000 + number,
            label="defect" if image % 2 else "ok",
            shipped="test" if coin == 0 else "train",
            image=2000 + image,
        )
        for number, (image, coin) in enumerate(zip(images, tests, strict=True))
    ]


def sides_of_images(rows: list[Row]) -> dict[str, set[str]]:
    sides = defaultdict(set)
    for one in rows:
        if one.split:
            sides[one.sha256].add(one.split)
    return sides


@LAW
@given(rows=datasets(), seed=st.integers(0, 2**31))
def test_identical_images_are_never_on_two_sides(rows: list[Row], seed: int) -> None:
    result, _ = split_rows(rows, PARAMS, seed)

    assert all(len(sides) == 1 for sides in sides_of_images(result).values())


@LAW
@given(rows=datasets(), seed=st.integers(0, 2**31), data=st.data())
def test_the_split_depends_on_the_seed_and_not_on_the_order(
    rows: list[Row], seed: int, data: st.DataObject
) -> None:
    limited = SplitParams(val=0.1, calibration=0.2, train_limit=20, holdout_limit=6)
    shuffled = data.draw(st.permutations(rows))

    assert split_rows(rows, limited, seed) == split_rows(shuffled, limited, seed)


@LAW
@given(rows=datasets(), seed=st.integers(0, 2**31))
def test_no_row_is_lost_and_the_shipped_test_set_stays_the_test_set(
    rows: list[Row], seed: int
) -> None:
    result, report = split_rows(rows, PARAMS, seed)

    assert sorted(one.path for one in result) == sorted(one.path for one in rows)
    assert all((one.split == "test") == (one.shipped_split == "test") for one in result)
    counted = sum(sum(by_class.values()) for by_class in report["per_split"].values())
    assert counted + sum(report["dropped"].values()) == len(rows)


@LAW
@given(
    rows=datasets(),
    seed=st.integers(0, 2**31),
    train=st.integers(2, 60),
    holdout=st.integers(2, 60),
)
def test_limits_hold_and_keep_both_classes(
    rows: list[Row], seed: int, train: int, holdout: int
) -> None:
    params = SplitParams(val=0.1, calibration=0.2, train_limit=train, holdout_limit=holdout)

    _, report = split_rows(rows, params, seed)

    for side, by_class in report["per_split"].items():
        assert sum(by_class.values()) <= (train if side == "train" else holdout)
        assert min(by_class.values()) >= 1


def test_another_seed_is_another_split() -> None:
    first, _ = split_rows(plain(), PARAMS, 1)
    second, _ = split_rows(plain(), PARAMS, 2)

    assert first != second


def test_the_shares_hold_in_each_class() -> None:
    _, report = split_rows(plain(400), PARAMS, 20)

    assert report["per_split"] == {
        "train": {"ok": 126, "defect": 84},
        "val": {"ok": 18, "defect": 12},
        "calibration": {"ok": 36, "defect": 24},
        "test": {"ok": 60, "defect": 40},
    }


def test_duplicates_of_test_images_are_dropped_from_train_and_counted() -> None:
    rows = [*plain(), row(900, label="ok", shipped="train", image=4)]

    result, report = split_rows(rows, PARAMS, 20)

    assert next(one for one in result if "0900" in one.path).split == ""
    assert report["dropped"]["duplicates_of_test"] == 1


def test_undecodable_images_are_left_out_and_counted() -> None:
    rows = [*plain(), row(900, label="ok", shipped="test", image=9, issues="undecodable")]

    result, report = split_rows(rows, PARAMS, 20)

    assert next(one for one in result if "0900" in one.path).split == ""
    assert report["dropped"]["undecodable"] == 1


def test_all_images_of_a_part_go_to_one_side() -> None:
    rows = [
        Row(**{**fields_of(one), "part": f"{one.label}-{index // 5}"})
        for index, one in enumerate(sorted(plain(200), key=lambda one: one.label))
        if one.shipped_split == "train"
    ]
    tests = [one for one in plain(200) if one.shipped_split == "test"]

    result, _ = split_rows(rows + tests, PARAMS, 20)

    sides = defaultdict(set)
    for one in result:
        if one.shipped_split == "train":
            sides[one.part].add(one.split)
    assert all(len(of_part) == 1 for of_part in sides.values())


def test_more_data_leaves_most_images_on_their_side() -> None:
    before, _ = split_rows(plain(400), PARAMS, 20)
    after, _ = split_rows(plain(420), PARAMS, 20)

    known = {one.path: one.split for one in before}
    moved = Counter(one.split != known[one.path] for one in after if one.path in known)
    assert moved[True] < 0.05 * len(known)


def test_a_side_without_a_class_is_refused_by_name() -> None:
    rows = [one for one in plain() if one.shipped_split == "test" or one.label == "ok"]
    rows += [row(900, label="defect", shipped="train", image=900)]

    with pytest.raises(DataError, match="no defect image for train"):
        split_rows(rows, PARAMS, 20)


def fields_of(one: Row) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Row.__slots__}
