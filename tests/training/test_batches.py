from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import STILL, STRONG

from zdm_ml.data.augment import Augmenter
from zdm_ml.data.pasting import draw_patches
from zdm_ml.recipes import AugmentParams
from zdm_ml.training.batches import Feed, castings_evenly, epoch_batches, in_batches
from zdm_ml.training.sides import Side, make_side

SIZE = 16


def numbered(count: int, size: int = 4) -> Side:
    """Return images whose grey level is their number, good and defective in turn."""
    levels = np.arange(count)
    images = np.broadcast_to(levels[:, None, None], (count, size, size)).astype(np.uint8)
    return make_side(images, levels % 2)


def uneven() -> Side:
    """Return 3 good castings with 1, 2 and 9 images and 2 defective ones with 4 and 8."""
    castings = np.repeat([10, 11, 12, 13, 14], [1, 2, 9, 4, 8])
    order = np.random.default_rng(0).permutation(len(castings))
    targets = (castings >= 13).astype(np.int64)
    images = np.random.default_rng(1).integers(0, 256, (len(castings), SIZE, SIZE), dtype=np.uint8)
    return Side(images, np.arange(len(castings)), targets[order], castings[order])


def shown(
    side: Side, params: AugmentParams = STILL, *, batch_size: int = 4, threads: int = 2, **more: Any
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return what the second epoch of a feed of seed 3 shows."""
    settings: dict[str, Any] = {"sampling": "images", "images_per_epoch": None, **more}
    patches = draw_patches(side.size, 8) if params.paste else ()
    with Augmenter(params, 3, patches, threads=threads) as augmenter:
        feed = Feed(side, batch_size=batch_size, seed=3, augmenter=augmenter, **settings)
        yield from feed.batches(2)


@settings(deadline=None)  # other programs may hold the CPU
@given(st.integers(2, 200), st.integers(2, 64), st.integers(0, 9), st.integers(1, 9))
def test_every_image_comes_once_and_never_alone(
    count: int, batch_size: int, seed: int, epoch: int
) -> None:
    batches = epoch_batches(count, batch_size, seed, epoch)

    assert sorted(np.concatenate(batches)) == list(range(count))
    assert all(2 <= len(batch) <= batch_size + 1 for batch in batches)


@given(st.integers(2, 90), st.integers(2, 30))
def test_batches_keep_the_order(count: int, batch_size: int) -> None:
    order = np.random.default_rng(count).integers(0, 1000, count)

    assert (np.concatenate(in_batches(order, batch_size)) == order).all()


def test_order_depends_on_seed_and_epoch() -> None:
    orders = [
        np.concatenate(epoch_batches(50, 8, *key)) for key in [(1, 1), (1, 1), (1, 2), (2, 1)]
    ]

    assert (orders[0] == orders[1]).all()
    assert (orders[0] != orders[2]).any() and (orders[0] != orders[3]).any()


@settings(deadline=None)
@given(
    draws=st.integers(2, 120),
    good=st.sampled_from([0.0, 0.5, 2 / 3, 1.0]),
    epoch=st.integers(1, 9),
)
def test_castings_of_a_class_and_images_of_a_casting_come_equally_often(
    draws: int, good: float, epoch: int
) -> None:
    side = uneven()

    drawn = castings_evenly(side, draws, 1, epoch, good=good)

    times = np.bincount(drawn, minlength=len(side))
    assert len(drawn) == draws
    assert (side.targets[drawn] == 0).sum() == round(draws * good)
    for label in (0, 1):
        castings = np.unique(side.castings[side.targets == label])
        assert np.ptp([times[side.castings == casting].sum() for casting in castings]) <= 1
    for casting in np.unique(side.castings):
        assert np.ptp(times[side.castings == casting]) <= 1


def test_a_side_that_is_drawn_whole_shows_every_image_of_equal_castings_once() -> None:
    side = make_side(np.zeros((12, 4, 4), np.uint8), np.repeat([0, 1], 6), np.arange(12) // 2)

    drawn = castings_evenly(side, 12, 1, 1)

    assert sorted(drawn) == list(range(12))


def test_which_casting_gets_the_odd_draw_changes_from_epoch_to_epoch() -> None:
    side = uneven()

    favoured = {
        int(side.castings[at]) for epoch in range(1, 9) for at in castings_evenly(side, 2, 1, epoch)
    }

    assert favoured == {10, 11, 12, 13, 14}


def test_drawn_castings_are_mixed_and_depend_on_seed_and_epoch_alone() -> None:
    side = uneven()

    orders = [castings_evenly(side, 60, *key) for key in [(1, 1), (1, 1), (1, 2), (2, 1)]]

    truth = side.targets[orders[0]]
    assert (orders[0] == orders[1]).all()
    assert (orders[0] != orders[2]).any() and (orders[0] != orders[3]).any()
    assert (np.diff(truth) != 0).sum() > 15


@pytest.mark.parametrize("label", [0, 1])
def test_of_a_side_of_one_class_all_draws_are_of_it(label: int) -> None:
    side = make_side(np.zeros((5, 4, 4), np.uint8), np.full(5, label))

    assert len(castings_evenly(side, 8, 1, 1)) == 8


@pytest.mark.parametrize("count", [2, 7, 40])
def test_feed_keeps_images_with_their_targets_in_order(count: int) -> None:
    side = numbered(count)

    batches = list(shown(side))

    levels = [np.rint(pixels[:, 0, 0] * 255).astype(int) for pixels, _ in batches]
    assert all(
        (level % 2 == truth).all() for level, (_, truth) in zip(levels, batches, strict=True)
    )
    assert (np.concatenate(levels) == np.concatenate(epoch_batches(count, 4, 3, 2))).all()


@pytest.mark.parametrize(("draws", "images"), [(10, 10), (None, 24)])
def test_feed_of_castings_shows_as_many_images_as_an_epoch_has(
    draws: int | None, images: int
) -> None:
    side = uneven()

    batches = list(shown(side, sampling="castings", images_per_epoch=draws))

    truth = np.concatenate([targets for _, targets in batches])
    assert len(truth) == images
    assert truth.mean() == 0.5


def test_images_per_epoch_is_for_castings_alone() -> None:
    batches = list(shown(numbered(10), images_per_epoch=4))

    assert sum(len(truth) for _, truth in batches) == 10


@pytest.mark.parametrize(("batch_size", "threads"), [(2, 1), (5, 3), (40, 2)])
def test_pixels_do_not_depend_on_batch_size_or_threads(batch_size: int, threads: int) -> None:
    options = {"sampling": "castings", "images_per_epoch": 30}
    expected = list(shown(uneven(), STRONG, **options))

    found = list(shown(uneven(), STRONG, batch_size=batch_size, threads=threads, **options))

    for which in (0, 1):
        one, other = (np.concatenate([batch[which] for batch in it]) for it in (expected, found))
        assert (one == other).all()


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_that_share_a_batch_show_together_what_one_shows(processes: int) -> None:
    options: dict[str, Any] = {"sampling": "castings", "images_per_epoch": 30, "batch_size": 6}
    expected = list(shown(uneven(), STRONG, **options))

    shares = [
        list(shown(uneven(), STRONG, share=(rank, processes), **options))
        for rank in range(processes)
    ]

    for number, (pixels, truth) in enumerate(expected):
        for rank, share in enumerate(shares):
            assert (share[number][0] == pixels[rank::processes]).all()
            assert (share[number][1] == truth[rank::processes]).all()


def test_with_paste_and_more_good_castings_half_of_what_is_shown_is_good() -> None:
    params = replace(STILL, paste=0.25)

    batches = list(
        shown(uneven(), params, sampling="castings", images_per_epoch=1200, good=0.5 / 0.75)
    )

    truth = np.concatenate([targets for _, targets in batches])
    assert abs(truth.mean() - 0.5) < 0.05


def test_good_parts_are_mixed_with_good_parts_alone() -> None:
    size, castings = 16, np.repeat(np.arange(6), 2)
    targets = (castings >= 3).astype(np.int64)
    # Good castings show stripes across, defective ones stripes down.
    down = np.where(np.arange(size) // 2 % 2, 150, 50)
    images = np.where(targets[:, None, None], down, down[:, None]).astype(np.uint8)
    side = Side(images, np.arange(12), targets, castings)

    for pixels, truth in shown(side, replace(STILL, mix=1.0)):
        kinds = np.where(truth[:, None, None], down, down[:, None])
        assert np.abs(pixels * 255 - kinds).max() < 1e-3


def test_a_pass_that_is_given_up_stops_its_thread() -> None:
    with Augmenter(STILL, 3) as augmenter:
        batches = Feed(numbered(40), "images", None, 4, 3, augmenter).batches(1)
        next(batches)
        batches.close()

    with pytest.raises(StopIteration):
        next(batches)


def test_an_error_in_the_thread_reaches_who_asked() -> None:
    side = numbered(8)
    broken = replace(side, places=side.places + 4)

    with pytest.raises(IndexError):
        list(shown(broken))
