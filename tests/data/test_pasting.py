from __future__ import annotations

import numpy as np
import pytest

from zdm_ml.data.geometry import CAVITY, RIM, make_grid
from zdm_ml.data.pasting import PATCHES, Patch, draw_patches, paste


def test_paste_mixes_by_cover_and_leaves_the_rest() -> None:
    image = np.full((8, 8), 100, np.uint8)
    cover = np.array([[0.0, 0.5], [0.25, 1.0]], np.float32)
    patch = Patch(slice(2, 4), slice(5, 7), cover, np.full((2, 2), 20, np.float32))

    paste(image, patch)

    assert image[2:4, 5:7].tolist() == [[100, 60], [80, 20]]
    image[2:4, 5:7] = 100
    assert (image == 100).all()


@pytest.mark.parametrize("size", [16, 64, 160, 301])
def test_patches_of_any_size_lie_between_cavity_and_rim_and_are_seen(size: int) -> None:
    patches = draw_patches(size, 16)

    grid = make_grid(size)
    assert len(patches) == 16
    for patch in patches:
        radius = grid.radius[patch.rows, patch.columns]
        weight = patch.cover / patch.cover.sum()
        assert radius.shape == patch.cover.shape == patch.level.shape
        assert patch.cover.min() >= 0 and patch.cover.max() <= 1
        # A pixel of the smallest size is wider than what is left beside them.
        slack = 300 / size
        assert CAVITY - slack <= (radius * weight).sum() <= RIM + 2 + slack


@pytest.mark.parametrize("size", [64, 160])
def test_every_patch_darkens_or_brightens_a_good_casting_visibly(size: int) -> None:
    for patch in draw_patches(size, 32):
        image = np.full((size, size), 170, np.uint8)

        paste(image, patch)

        assert np.abs(image.astype(int) - 170).max() > 15


def test_every_training_draws_the_same_patches() -> None:
    first, again = (draw_patches.__wrapped__(32, 8) for _ in range(2))

    assert all(
        (one.cover == other.cover).all() and (one.level == other.level).all()
        for one, other in zip(first, again, strict=True)
    )


def test_more_patches_begin_with_the_same_ones() -> None:
    few, many = draw_patches(32, 4), draw_patches(32, 8)

    assert [patch.rows for patch in many[:4]] == [patch.rows for patch in few]
    assert len({(patch.rows.start, patch.columns.start) for patch in many}) == 8


def test_the_usual_patches_are_drawn_once_per_size() -> None:
    patches = draw_patches(16)

    assert len(patches) == PATCHES
    assert draw_patches(16) is patches
