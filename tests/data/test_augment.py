from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recipes import MILD, STILL, STRONG

from zdm_ml.data.augment import (
    Augmenter,
    _Memory,
    lighting_tables,
    partner_rows,
    warp_matrices,
)
from zdm_ml.data.draws import draws
from zdm_ml.data.pasting import Patch
from zdm_ml.recipes import AugmentParams, Interpolation

GOOD = 0

BLOT = Patch(
    slice(3, 9), slice(20, 26), np.ones((6, 6), np.float32), np.full((6, 6), 255, np.float32)
)
"""A white square that replaces what it covers."""


def pictures(count: int, size: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, size, size), dtype=np.uint8)


def shown(
    params: AugmentParams,
    images: np.ndarray,
    *,
    seed: int = 0,
    epoch: int = 1,
    target: int = GOOD,
    patches: Sequence[Patch] = (),
    partners: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return grey levels, uint8, and targets of images that are an epoch's first ones."""
    places = np.arange(len(images))
    with Augmenter(params, seed, patches) as augmenter:
        labels = np.full(len(images), target)
        greys, targets = augmenter.batch(images, labels, epoch, places, partners)
    assert greys.min() >= -1e-6 and greys.max() <= 1 + 1e-6
    levels = np.rint(greys * 255).astype(np.uint8)
    return levels, targets


def uniform(count: int) -> np.ndarray:
    """Return what chance decides for the first `count` places of an epoch."""
    return draws(0, 1, np.arange(count)).uniform


def test_without_any_change_the_picture_is_the_same() -> None:
    images = pictures(3)

    levels, _ = shown(STILL, images)

    assert (levels == images).all()


@pytest.mark.parametrize(
    ("params", "axis"),
    [(replace(STILL, horizontal_flip=1.0), 2), (replace(STILL, vertical_flip=1.0), 1)],
)
def test_a_flip_alone_moves_every_pixel_exactly(params: AugmentParams, axis: int) -> None:
    images = pictures(3)

    levels, _ = shown(params, images)

    assert (levels == np.flip(images, axis)).all()


def test_flip_probability_is_met() -> None:
    images = np.repeat(np.arange(40, dtype=np.uint8)[None, :], 40, 0)[None].repeat(400, 0)

    levels, _ = shown(replace(STILL, horizontal_flip=0.3), images)

    assert 0.22 < (levels[:, 0, 0] == 39).mean() < 0.38


@given(
    st.integers(0, 9),
    st.integers(1, 9),
    st.lists(st.integers(0, 5000), min_size=1, max_size=8),
)
def test_draws_of_a_place_do_not_depend_on_its_company(
    seed: int, epoch: int, places: list[int]
) -> None:
    together = draws(seed, epoch, np.array(places))

    for row, place in enumerate(places):
        alone = draws(seed, epoch, np.array([place]))
        assert (alone.uniform[0] == together.uniform[row]).all()
        assert (alone.field[0] == together.field[row]).all()


def test_no_two_places_of_a_long_epoch_draw_the_same() -> None:
    drawn = draws(0, 1, np.arange(5000))

    assert len(np.unique(drawn.uniform[:, 0])) == 5000
    assert len(np.unique(drawn.field[:, 0, 0])) > 4950
    assert drawn.uniform.min() >= 0 and drawn.uniform.max() < 1


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [[0, 1, 2], [11, 0], [5], range(3, 12)])
def test_pixels_do_not_depend_on_batch_or_threads(threads: int, batch: Sequence[int]) -> None:
    images, targets = pictures(12), np.arange(12) % 2
    # Across the end of a block of draws.
    places, chosen = np.arange(12) + 1018, np.array(batch)
    with Augmenter(STRONG, 7, [BLOT], threads=4) as augmenter:
        expected, expected_targets = augmenter.batch(images, targets, 2, places)

    with Augmenter(STRONG, 7, [BLOT], threads=threads) as augmenter:
        augmenter.batch(images, targets, 1, places)
        result, result_targets = augmenter.batch(images[chosen], targets[chosen], 2, places[chosen])

    assert (result == expected[chosen]).all()
    assert (result_targets == expected_targets[chosen]).all()


def test_places_epochs_and_seeds_differ() -> None:
    same = pictures(1).repeat(2, 0)

    first, _ = shown(MILD, same, seed=7)
    later, _ = shown(MILD, same, seed=7, epoch=2)
    other, _ = shown(MILD, same, seed=8)

    assert (first[0] != first[1]).any()
    assert (first != later).any() and (first != other).any()


def test_images_are_not_changed_in_place() -> None:
    images = pictures(4)
    before = images.copy()

    shown(replace(STRONG, paste=0.5), images, patches=[BLOT])

    assert (images == before).all()


@pytest.mark.parametrize(("mean", "std"), [(0.5643, 0.2386), (0.0, 2.0)])
def test_output_is_the_lit_grey_level_in_0_to_1_normalised(mean: float, std: float) -> None:
    images, targets, places = pictures(6), np.zeros(6, np.int64), np.arange(6)
    levels, _ = shown(STRONG, images, seed=7, patches=[BLOT])

    with Augmenter(STRONG, 7, [BLOT], mean=mean, std=std) as augmenter:
        result, _ = augmenter.batch(images, targets, 1, places)

    assert result.dtype == np.float32
    assert (result == ((levels / 255 - mean) / std).astype(np.float32)).all()


def test_beyond_the_border_the_border_goes_on() -> None:
    image = np.full((40, 40), 200, np.uint8)
    image[5:35, 5:35] = 20

    moved, _ = shown(replace(STILL, translate=0.05, degrees=2.5), image[None].repeat(20, 0))

    assert moved.min() >= 20
    assert (moved[:, [0, 0, -1, -1], [0, -1, 0, -1]] == 200).all()


@pytest.mark.parametrize(("interpolation", "between"), [("nearest", False), ("bilinear", True)])
def test_interpolation_decides_whether_levels_between_pixels_appear(
    interpolation: Interpolation, between: bool
) -> None:
    board = (200 * (np.indices((40, 40)).sum(0) // 4 % 2)).astype(np.uint8)

    turned, _ = shown(replace(STILL, interpolation=interpolation, degrees=45.0), board[None])

    assert bool(set(np.unique(turned)) - {0, 200}) == between
    assert (turned != board).mean() > 0.1


def test_shift_stays_within_its_share_of_the_side() -> None:
    image = np.zeros((100, 100), np.uint8)
    image[50, 50] = 255

    moved, _ = shown(replace(STILL, translate=0.05), image[None].repeat(50, 0))

    places = [np.unravel_index(picture.argmax(), picture.shape) for picture in moved]
    distances = np.abs(np.array(places) - 50)
    assert 3 <= distances.max() <= 6


def test_a_turn_alone_keeps_every_distance_and_goes_all_the_way_round() -> None:
    matrices = warp_matrices(replace(STILL, degrees=180.0), uniform(200), 41)

    linear = matrices[:, :, :2]
    angles = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert np.allclose(linear @ linear.transpose(0, 2, 1), np.eye(2))
    assert angles.min() < -150 and angles.max() > 150
    assert np.allclose(matrices @ [20, 20, 1], 20)


def test_stretch_alone_lengthens_one_axis_as_much_as_it_shortens_the_other() -> None:
    matrices = warp_matrices(replace(STILL, stretch=0.1), uniform(200), 41)

    long, short = np.linalg.svd(matrices[:, :, :2])[1].T
    assert np.allclose(long * short, 1)
    assert 1.08 < long.max() <= np.exp(0.1)
    assert np.allclose(matrices[:, 0, 1], matrices[:, 1, 0])
    assert np.allclose(matrices @ [20, 20, 1], 20)


def test_stretch_comes_along_every_axis() -> None:
    linear = warp_matrices(replace(STILL, stretch=0.1), uniform(200), 41)[:, :, :2]

    # Along x or y alone both would be zero; along the diagonals the difference would be.
    off, difference = linear[:, 0, 1], linear[:, 0, 0] - linear[:, 1, 1]
    assert off.min() < -0.05 and off.max() > 0.05
    assert difference.min() < -0.1 and difference.max() > 0.1


def test_without_changes_of_light_every_level_stays() -> None:
    tables = lighting_tables(STILL, uniform(9), pictures(9))

    assert (tables == range(256)).all()


def test_jitter_is_monotonic_and_within_its_factors() -> None:
    even = np.full((50, 8, 8), 128, np.uint8)

    tables = lighting_tables(replace(STILL, jitter=0.2), uniform(50), even).astype(int)

    assert (np.diff(tables) >= 0).all()
    assert (tables[:, 128] >= 128 * 0.8 - 1).all() and (tables[:, 128] <= 128 * 1.2 + 1).all()
    assert tables[:, 128].min() < 110 and tables[:, 128].max() > 145


def test_contrast_turns_about_the_pictures_own_mean() -> None:
    dark, bright = np.full((30, 8, 8), 40, np.uint8), np.full((30, 8, 8), 200, np.uint8)
    jitter = replace(STILL, jitter=0.2)

    tables = [lighting_tables(jitter, uniform(30), images).astype(int) for images in (dark, bright)]

    # At its own mean a picture changes by the factor of brightness alone.
    factors = [table[:, level] / level for table, level in zip(tables, (40, 200), strict=True)]
    clipped = tables[1][:, 200] == 255
    assert np.allclose(factors[0][~clipped], factors[1][~clipped], atol=0.02)


def test_gamma_alone_bends_the_middle_and_keeps_both_ends() -> None:
    tables = lighting_tables(replace(STILL, gamma=0.25), uniform(50), pictures(50)).astype(int)

    ends = [255 * (128 / 255) ** np.exp(exponent) for exponent in (0.25, -0.25)]
    assert (tables[:, 0] == 0).all() and (tables[:, 255] == 255).all()
    assert (np.diff(tables) >= 0).all()
    assert ends[0] - 1 <= tables[:, 128].min() < 115
    assert 140 < tables[:, 128].max() <= ends[1] + 1


def test_lighting_alone_is_a_smooth_field_that_multiplies() -> None:
    even = np.full((60, 40, 40), 100, np.uint8)
    params = replace(STILL, lighting=0.15)

    bright, _ = shown(params, even)
    dark, _ = shown(params, even // 2)

    lit = bright.astype(int)
    spread = np.ptp(lit, axis=(1, 2))
    steps = np.maximum(np.abs(np.diff(lit, axis=1)).max((1, 2)), np.abs(np.diff(lit)).max((1, 2)))
    assert 8 < lit.std() < 16
    assert abs(lit.mean() - 100) < 3
    assert (steps < spread / 4).all()
    assert np.abs(dark - bright / 2).max() <= 1


def test_lighting_never_wraps_round_at_black_and_white() -> None:
    images = np.zeros((20, 40, 40), np.uint8)
    images[:, :, 20:] = 255

    lit, _ = shown(replace(STILL, lighting=0.9), images)

    assert (lit[:, :, :20] == 0).all()
    # White stays white wherever the field is above zero.
    assert (lit[:, :, 20:] == 255).mean() > 0.4


def test_paste_makes_a_defect_of_a_good_part_and_changes_nothing_beside_it() -> None:
    images = pictures(30)

    levels, targets = shown(replace(STILL, paste=0.5), images, patches=[BLOT])

    expected = images.copy()
    expected[:, BLOT.rows, BLOT.columns] = 255
    pasted = targets == 1
    assert (levels[pasted] == expected[pasted]).all()
    assert (levels[~pasted] == images[~pasted]).all()


def test_paste_probability_is_met_and_every_patch_is_used() -> None:
    levels = [50, 100, 150, 200]
    patches = [replace(BLOT, level=np.full((6, 6), level, np.float32)) for level in levels]
    images = np.zeros((800, 40, 40), np.uint8)

    found, targets = shown(replace(STILL, paste=0.3), images, patches=patches)

    chosen, counts = np.unique(found.max((1, 2)), return_counts=True)
    assert 0.25 < targets.mean() < 0.35
    assert list(chosen) == [0, *levels]
    assert (counts[1:] > 30).all()


def test_defects_get_nothing_pasted() -> None:
    images = pictures(20)

    levels, targets = shown(replace(STILL, paste=0.5), images, target=1, patches=[BLOT])

    assert (targets == 1).all()
    assert (levels == images).all()


def test_without_patches_good_parts_stay_good() -> None:
    images = pictures(20)

    levels, targets = shown(replace(STILL, paste=0.5), images)

    assert (targets == GOOD).all()
    assert (levels == images).all()


def test_a_pasted_defect_is_lit_with_the_casting() -> None:
    images = np.full((40, 40, 40), 100, np.uint8)
    params = replace(STILL, paste=0.5, jitter=0.5)
    patch = replace(BLOT, level=np.full((6, 6), 100, np.float32))

    levels, targets = shown(params, images, patches=[patch])

    assert targets.any()
    assert (np.ptp(levels, axis=(1, 2)) == 0).all()


def two_kinds(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures with stripes across and with stripes down, alike in mean and contrast."""
    down = np.where(np.arange(40) // 4 % 2, 150, 50).astype(np.uint8)
    across = np.broadcast_to(down[:, None], (count, 40, 40)).copy()
    return across, across.transpose(0, 2, 1).copy()


def test_a_mixed_good_part_shows_another_one_in_some_places() -> None:
    images, partners = two_kinds(200)

    levels, targets = shown(replace(STILL, mix=0.5), images, partners=partners)

    mixed = (levels != images).any((1, 2))
    assert 0.4 < mixed.mean() < 0.6
    assert (targets == GOOD).all()
    nearer = np.abs(levels - partners.astype(int)) < np.abs(levels - images.astype(int))
    share = nearer[mixed][:, images[0] != partners[0]].mean(1)
    # Some parts show a third of their partner, some two thirds, and half of all is its.
    assert share.min() < 0.35 and share.max() > 0.65
    assert 0.4 < share.mean() < 0.6
    assert levels.min() >= 50 and levels.max() <= 150


def test_a_partner_is_shown_in_the_light_of_the_part_that_it_is_mixed_into() -> None:
    images, partners = two_kinds(50)

    bright, _ = shown(replace(STILL, mix=1.0), images, partners=partners // 2 + 100)
    alike, _ = shown(replace(STILL, mix=1.0), images, partners=partners)

    assert np.abs(bright.astype(int) - alike).max() <= 1


def test_defective_parts_and_parts_without_partners_are_not_mixed() -> None:
    images, partners = two_kinds(20)
    params = replace(STILL, mix=1.0)

    assert (shown(params, images, target=1, partners=partners)[0] == images).all()
    assert (shown(params, images)[0] == images).all()


def test_partners_come_from_every_casting_alike_and_from_all_of_its_images() -> None:
    castings, good = np.repeat([3, 5, 9], [1, 2, 7]), np.arange(100, 110)

    rows = partner_rows(draws(0, 1, np.arange(3000)).partner, castings, good)

    assert set(rows) == set(good)
    by_casting = np.bincount(castings[rows - 100])[[3, 5, 9]]
    assert (np.abs(by_casting - 1000) < 120).all()


def test_memory_is_used_again_only_once_no_array_refers_to_it() -> None:
    memory = _Memory()
    first = memory.empty((2, 4))
    address = first.ctypes.data
    view = first[1]
    del first
    assert memory.empty((2, 4)).ctypes.data != address
    del view
    held = [memory.empty((1, 4)) for _ in range(3)]
    addresses = [array.ctypes.data for array in held]
    assert address in addresses
    assert len(set(addresses)) == 3
