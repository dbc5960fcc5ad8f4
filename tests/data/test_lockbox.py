"""What is drawn into the lockbox."""

from __future__ import annotations

import pytest
from castings_rows import castings, image, related

from zdm_ml.data.lockbox import draw


def classes(parts: set[str]) -> tuple[int, int]:
    return sum(part.startswith("ok") for part in parts), sum(part[0] == "d" for part in parts)


@pytest.mark.parametrize(
    ("ok", "defect", "drawn"), [(20, 40, (4, 8)), (11, 60, (2, 12)), (4, 4, (2, 2))]
)
def test_a_share_of_each_class_is_drawn_and_two_at_least(
    ok: int, defect: int, drawn: tuple[int, int]
) -> None:
    assert classes(draw(castings(ok, defect), 0.2, 0)) == drawn


def test_the_seed_draws_and_not_the_order_of_images() -> None:
    rows = castings(20, 40)

    assert draw(rows, 0.2, 0) == draw(rows[::-1], 0.2, 0) != draw(rows, 0.2, 1)


def test_castings_that_may_be_one_go_together() -> None:
    families = [{f"defect{n}", f"defect{n + 1}"} for n in range(0, 40, 2)]

    drawn = draw(related(castings(20, 40), *families), 0.2, 0)

    assert classes(drawn) == (4, 8)
    assert all(family <= drawn or not family & drawn for family in families)


def test_a_casting_with_both_labels_is_not_drawn() -> None:
    both = [image("both", 0, "ok"), image("both", 1, "defect")]

    assert "both" not in draw([*castings(2, 2), *both], 0.5, 0)
