"""Dealing castings to sides: laws, memory, and what is too few."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from castings_rows import castings, datasets, image, related
from hypothesis import given, settings
from hypothesis import strategies as st

from zdm_ml.data.listing import Entry
from zdm_ml.data.manifest import Row, Split
from zdm_ml.data.sides import deal, remembered_sides
from zdm_ml.errors import DataError
from zdm_ml.params import SplitParams

LAW = settings(deadline=None, max_examples=40, derandomize=True)
PARAMS = SplitParams("grouped", 0.15, 0.15, 0.2, True, 5, 0, None, None, "closed")
SEED = 20


def shape(rows: list[Row], sides: dict[str, Split]) -> dict[str, dict[str, int]]:
    """Castings per class and side."""
    counted = Counter(
        (row.label, sides[row.part]) for row in {row.part: row for row in rows}.values()
    )
    return {
        label: {side: n for (of, side), n in sorted(counted.items()) if of == label}
        for label in ("ok", "defect")
    }


def entry(path: str, part: str, side: Split) -> Entry:
    return Entry(path=path, sha256=path, size=1, part=part, known=False, side=side)


@LAW
@given(rows=datasets(), seed=st.integers(0, 2**31), data=st.data())
def test_sides_depend_on_the_seed_and_not_on_the_order_of_images(
    rows: list[Row], seed: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(rows))

    assert deal(rows, {}, PARAMS, seed) == deal(shuffled, {}, PARAMS, seed)


@LAW
@given(rows=datasets(), more=datasets(), seed=st.integers(0, 2**31))
def test_a_remembered_casting_never_changes_sides(
    rows: list[Row], more: list[Row], seed: int
) -> None:
    before = deal(rows, {}, PARAMS, seed)
    added = [replace(row, part=f"new-{row.part}", path=f"new-{row.path}") for row in more]

    after = deal(rows + added, before, PARAMS, seed + 1)

    assert {part: after[part] for part in before} == before


@LAW
@given(rows=datasets(least=8), seed=st.integers(0, 2**31))
def test_every_side_has_two_castings_of_each_class(rows: list[Row], seed: int) -> None:
    sides = deal(rows, {}, PARAMS, seed)

    counts = shape([row for row in rows if row.part in sides], sides)
    for of_class in counts.values():
        assert set(of_class) == {"train", "val", "calibration", "test"}
        assert min(of_class.values()) >= 2


@LAW
@given(start=st.integers(6, 20), step=st.integers(1, 7), seed=st.integers(0, 2**31))
def test_castings_that_arrive_bit_by_bit_end_within_one_of_the_shares(
    start: int, step: int, seed: int
) -> None:
    sides: dict[str, Split] = {}
    for count in (*range(start, 40, step), 40):
        sides = deal(castings(count, count), sides, PARAMS, seed)

    for of_class in shape(castings(40, 40), sides).values():
        assert of_class == pytest.approx(
            {"train": 20, "val": 6, "calibration": 6, "test": 8}, abs=1
        )


def test_the_shares_hold_in_each_class() -> None:
    rows = castings(100, 40)

    assert shape(rows, deal(rows, {}, PARAMS, SEED)) == {
        "ok": {"train": 50, "val": 15, "calibration": 15, "test": 20},
        "defect": {"train": 20, "val": 6, "calibration": 6, "test": 8},
    }


def test_seven_castings_of_a_class_give_three_sides() -> None:
    rows = castings(7, 30)

    assert shape(rows, deal(rows, {}, PARAMS, SEED)) == {
        "ok": {"train": 3, "val": 2, "test": 2},
        "defect": {"train": 15, "val": 9, "test": 6},
    }


def test_later_castings_fill_the_calibration_side_and_none_moves_for_it() -> None:
    before = deal(castings(6, 6), {}, PARAMS, SEED)

    after = deal(castings(8, 8), before, PARAMS, SEED)

    added = {part: side for part, side in after.items() if part not in before}
    assert set(added.values()) == {"calibration"}
    assert {part: after[part] for part in before} == before


def test_one_casting_at_a_time_opens_the_calibration_side() -> None:
    """Below two castings it goes on; `split_rows` counts the lonely ones with val meanwhile."""
    sides = deal(castings(7, 7), {}, PARAMS, SEED)

    for count in (8, 9):
        sides = deal(castings(count, count), sides, PARAMS, SEED)

    of_class = shape(castings(9, 9), sides)
    assert [of_class[label]["calibration"] for label in ("ok", "defect")] == [2, 2]


def test_new_castings_go_where_the_balance_lacks_most() -> None:
    rows = castings(20, 20)
    before = deal(rows, {}, PARAMS, SEED)
    without_test = {part: side for part, side in before.items() if side != "test"}
    left = [row for row in rows if row.part in without_test]

    after = deal([*left, *castings(2, 2, first=50)], without_test, PARAMS, SEED)

    assert {after[part] for part in ("ok50", "ok51", "defect50", "defect51")} == {"test"}


@LAW
@given(rows=datasets(least=12), seed=st.integers(0, 2**31), data=st.data())
def test_castings_that_may_be_one_share_a_side(
    rows: list[Row], seed: int, data: st.DataObject
) -> None:
    parts = sorted({row.part for row in rows})
    pairs = data.draw(st.lists(st.sampled_from(parts), max_size=8, unique=True))
    families = [set(pairs[place : place + 2]) for place in range(0, len(pairs) - 1, 2)]

    sides = deal(related(rows, *families), {}, PARAMS, seed)

    for family in families:
        assert len({sides[part] for part in family if part in sides}) <= 1


def test_a_casting_joins_the_side_of_what_may_be_the_same_casting() -> None:
    before = deal(castings(20, 20), {}, PARAMS, SEED)
    rows = related(castings(24, 20), {"ok21", "ok3"}, {"ok22", "defect7"})

    after = deal(rows, before, PARAMS, SEED)

    assert after["ok21"] == before["ok3"]
    assert after["ok22"] == before["defect7"]
    assert {part: after[part] for part in before} == before


def test_castings_that_may_be_one_count_as_one() -> None:
    """Eight good castings of which three may be one are six: two on each of three sides."""
    rows = related(castings(8, 30), {"ok1", "ok4", "ok6"})

    sides = deal(rows, {}, PARAMS, SEED)

    assert set(sides.values()) == {"train", "val", "test"}
    with pytest.raises(DataError, match="5 ok and 30 defect"):
        deal(related(castings(8, 30), {"ok1", "ok4", "ok6", "ok7"}), {}, PARAMS, SEED)


@pytest.mark.parametrize(("ok", "defect"), [(5, 30), (30, 5), (0, 9)])
def test_too_few_castings_are_refused_with_the_numbers_and_kfold_is_proposed(
    ok: int, defect: int
) -> None:
    with pytest.raises(DataError, match=f"{ok} ok and {defect} defect") as caught:
        deal(castings(ok, defect), {}, PARAMS, SEED)

    assert "zdm experiment kfold" in caught.value.hint


def test_a_memory_that_leaves_a_side_short_can_be_dealt_anew() -> None:
    rows = castings(9, 9)
    remembered: dict[str, Split] = {row.part: "train" for row in rows}

    with pytest.raises(DataError, match="val has 0 ok") as caught:
        deal(rows, remembered, PARAMS, SEED)

    assert "split.remember: false" in caught.value.hint


def test_castings_with_both_labels_get_no_side() -> None:
    both = [image("both", 0, "ok"), image("both", 1, "defect")]
    same_bytes = [
        image("a", 0, "ok", sha256="x", issues="duplicate;label_conflict"),
        image("b", 0, "defect", sha256="x", issues="duplicate;label_conflict"),
    ]

    sides = deal([*castings(9, 9), *both, *same_bytes], {}, PARAMS, SEED)

    assert sides.keys().isdisjoint({"both", "a", "b"})


def test_a_casting_that_turns_out_mixed_keeps_its_memory() -> None:
    """Should its labels be corrected, it must not come back on another side."""
    rows = castings(9, 9)
    remembered = deal(rows, {}, PARAMS, SEED)

    after = deal([*rows, image("ok0", 9, "defect")], remembered, PARAMS, SEED)

    assert after["ok0"] == remembered["ok0"]


def test_a_casting_without_a_decodable_image_gets_no_side() -> None:
    broken = image("broken", 0, "ok", issues="undecodable")

    assert "broken" not in deal([*castings(9, 9), broken], {}, PARAMS, SEED)


def test_the_memory_is_read_from_the_castings_list() -> None:
    entries = [entry("a.jpeg", "p1", "test"), entry("b.jpeg", "p1", ""), entry("c.jpeg", "p2", "")]

    assert remembered_sides(entries) == {"p1": "test"}


def test_a_castings_list_with_a_part_on_two_sides_is_refused_by_name() -> None:
    entries = [entry("b.jpeg", "p1", "train"), entry("a.jpeg", "p1", "test")]

    with pytest.raises(DataError, match=r"p1.*a\.jpeg on test, b\.jpeg on train"):
        remembered_sides(entries)
