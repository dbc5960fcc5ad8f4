from dataclasses import replace

import numpy as np
import pytest

from zdm_ml.data.augment import Augmenter, augment, lighting_table
from zdm_ml.params import AugmentParams

STILL = AugmentParams(0.0, 0.0, 0.0, 0.0, [1.0, 1.0], 0.0)
REFERENCE = AugmentParams(0.5, 0.3, 2.5, 0.05, [0.95, 1.05], 0.2)


def pictures(count: int, size: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, size, size), dtype=np.uint8)


def one(image: np.ndarray, params: AugmentParams, seed: int = 0) -> np.ndarray:
    out = np.empty_like(image)
    augment(image, params, np.random.default_rng(seed), out=out)
    return out


def test_without_any_change_the_picture_is_the_same() -> None:
    image = pictures(1)[0]

    assert (one(image, STILL) == image).all()


@pytest.mark.parametrize(
    ("params", "axis"),
    [(replace(STILL, horizontal_flip=1.0), 1), (replace(STILL, vertical_flip=1.0), 0)],
)
def test_a_flip_alone_moves_every_pixel_exactly(params: AugmentParams, axis: int) -> None:
    image = pictures(1)[0]

    assert (one(image, params) == np.flip(image, axis)).all()


def test_flip_probability_is_met() -> None:
    images = np.repeat(np.arange(40, dtype=np.uint8)[None, :], 40, 0)[None].repeat(400, 0)

    with Augmenter(replace(STILL, horizontal_flip=0.3), seed=1) as augmenter:
        result = augmenter.batch(images, 1, range(400))

    flipped = (result[:, 0, 0] == 39).mean()
    assert 0.22 < flipped < 0.38


@pytest.mark.parametrize("threads", [1, 3])
def test_result_depends_on_seed_epoch_and_index_alone(threads: int) -> None:
    images = pictures(12)
    with Augmenter(REFERENCE, seed=7, threads=4) as augmenter:
        expected = augmenter.batch(images, 2, range(12))

    order = np.array([5, 0, 11])
    with Augmenter(REFERENCE, seed=7, threads=threads) as augmenter:
        augmenter.batch(images, 1, range(12))
        result = augmenter.batch(images[order], 2, order)

    assert (result == expected[order]).all()


def test_epochs_and_seeds_differ() -> None:
    images = pictures(4)

    with Augmenter(REFERENCE, seed=7) as augmenter, Augmenter(REFERENCE, seed=8) as other:
        first = augmenter.batch(images, 1, range(4))
        results = [augmenter.batch(images, 2, range(4)), other.batch(images, 1, range(4))]

    assert all((first != result).any() for result in results)


def test_images_are_not_changed_in_place() -> None:
    images = pictures(4)
    before = images.copy()

    with Augmenter(REFERENCE, seed=7) as augmenter:
        augmenter.batch(images, 1, range(4))

    assert (images == before).all()


def test_beyond_the_border_the_border_goes_on() -> None:
    image = np.full((40, 40), 200, np.uint8)
    image[5:35, 5:35] = 20

    moved = [one(image, replace(STILL, translate=0.05, degrees=2.5), seed) for seed in range(20)]

    assert all(result[0].min() >= 20 and result.min() >= 20 for result in moved)
    assert all((result[[0, 0, -1, -1], [0, -1, 0, -1]] == 200).all() for result in moved)


def test_shift_stays_within_its_share_of_the_side() -> None:
    image = np.zeros((100, 100), np.uint8)
    image[50, 50] = 255
    params = replace(STILL, translate=0.05)

    places = [np.unravel_index(one(image, params, s).argmax(), (100, 100)) for s in range(50)]

    distances = np.abs(np.array(places) - 50)
    assert distances.max() <= 6
    assert distances.max() >= 3


def test_lighting_without_jitter_changes_nothing() -> None:
    assert (lighting_table(STILL, np.random.default_rng(0).random(8), 90.0) == range(256)).all()


def test_lighting_is_monotonic_and_within_its_factors() -> None:
    for seed in range(50):
        table = lighting_table(REFERENCE, np.random.default_rng(seed).random(8), 128.0)

        assert (np.diff(table.astype(int)) >= 0).all()
        assert 128 * 0.8 - 1 <= table[128] <= 128 * 1.2 + 1
