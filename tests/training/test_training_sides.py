from __future__ import annotations

import numpy as np
import pytest

from zdm_ml.training.sides import Side, make_side

IMAGES = np.arange(6, dtype=np.uint8)[:, None, None].repeat(5, 1).repeat(5, 2)


@pytest.mark.parametrize(
    ("chosen", "levels"), [(np.array([2, 0, 2]), [5, 1, 5]), (slice(1, 3), [4, 5])]
)
def test_a_side_shows_its_own_images_of_the_shared_array(
    chosen: np.ndarray | slice, levels: list[int]
) -> None:
    side = Side(IMAGES, np.array([1, 4, 5]), np.array([0, 1, 1]), np.array([7, 8, 8]))

    pictures = side.pictures(chosen)

    assert pictures[:, 0, 0].tolist() == levels
    assert (len(side), side.size) == (3, 5)


def test_a_side_of_all_images_takes_each_for_a_casting_of_its_own() -> None:
    side = make_side(IMAGES, np.arange(6) % 2)

    assert (side.pictures(slice(None)) == IMAGES).all()
    assert len(np.unique(side.castings)) == 6


def test_castings_that_are_known_are_kept() -> None:
    castings = np.array([3, 3, 3, 4, 4, 9])

    side = make_side(IMAGES, np.arange(6) % 2, castings)

    assert side.castings is castings
