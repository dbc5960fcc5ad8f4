"""Samples that stand for many images."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zdm_ml.data.manifest import Row
from zdm_ml.evaluation.sampling import spread


def rows(sizes: dict[str, int]) -> list[Row]:
    """Return images of castings by name; a name that starts with d is defective."""
    return [
        Row(
            f"{part}/{at}",
            "",
            "defect" if part[0] == "d" else "ok",
            part,
            "",
            "test",
            -1,
            1,
            1,
            0.0,
            "",
            "",
        )
        for part, count in sizes.items()
        for at in range(count)
    ]


MANY = rows({"d1": 30, "d2": 3, "d3": 1, "g1": 20, "g2": 2})


def test_every_casting_gives_one_image_before_any_gives_a_second() -> None:
    taken = Counter(row.part for row in spread(MANY, 10, seed=4))

    assert taken == {"d1": 2, "d2": 3, "d3": 1, "g1": 2, "g2": 2}


def test_classes_keep_their_proportion() -> None:
    counts = Counter(row.label for row in spread(MANY, 28, seed=4))

    assert counts == {"defect": 17, "ok": 11}


@given(st.permutations(MANY), st.integers(0, 60))
def test_the_choice_does_not_depend_on_the_order(shuffled: list[Row], limit: int) -> None:
    assert spread(shuffled, limit, 1) == spread(MANY, limit, 1)


@given(st.integers(0, 60), st.integers(0, 9))
def test_never_more_than_the_limit_and_both_classes_where_it_allows(limit: int, seed: int) -> None:
    kept = spread(MANY, limit, seed)

    assert len(kept) == min(limit, len(MANY))
    assert limit < 2 or {row.label for row in kept} == {"ok", "defect"}


@pytest.mark.parametrize("limit", [None, 1000])
def test_no_limit_keeps_all(limit: int | None) -> None:
    assert spread(MANY, limit, 0) == sorted(MANY, key=lambda row: row.path)


def test_a_single_class_gives_as_many_as_asked_for() -> None:
    assert len(spread(rows({"d1": 5, "d2": 5}), 3, 0)) == 3
