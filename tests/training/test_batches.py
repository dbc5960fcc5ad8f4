import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zdm_ml.data.augment import Augmenter
from zdm_ml.params import AugmentParams
from zdm_ml.training.batches import Feed, epoch_batches

STILL = AugmentParams(0.0, 0.0, 0.0, 0.0, [1.0, 1.0], 0.0)


@settings(deadline=None)  # other programs may hold the CPU
@given(st.integers(2, 200), st.integers(2, 64), st.integers(0, 9), st.integers(1, 9))
def test_every_image_comes_once_and_never_alone(
    count: int, batch_size: int, seed: int, epoch: int
) -> None:
    batches = epoch_batches(count, batch_size, seed, epoch)

    assert sorted(np.concatenate(batches)) == list(range(count))
    assert all(2 <= len(batch) <= batch_size + 1 for batch in batches)


def test_order_depends_on_seed_and_epoch() -> None:
    orders = [
        np.concatenate(epoch_batches(50, 8, *key)) for key in [(1, 1), (1, 1), (1, 2), (2, 1)]
    ]

    assert (orders[0] == orders[1]).all()
    assert (orders[0] != orders[2]).any() and (orders[0] != orders[3]).any()


@pytest.mark.parametrize("count", [2, 7, 40])
def test_feed_keeps_images_with_their_targets_in_order(count: int) -> None:
    targets = np.arange(count, dtype=np.int64)
    images = np.broadcast_to(targets[:, None, None], (count, 4, 4)).astype(np.uint8)

    with Augmenter(STILL, 3) as augmenter:
        batches = list(Feed(images, targets, 4, 3, augmenter).batches(1))

    assert all((pixels[:, 0, 0] == truth).all() for pixels, truth in batches)
    expected = np.concatenate(epoch_batches(count, 4, 3, 1))
    assert (np.concatenate([truth for _, truth in batches]) == expected).all()


def test_a_pass_that_is_given_up_stops_its_thread() -> None:
    images = np.zeros((40, 4, 4), np.uint8)

    with Augmenter(STILL, 3) as augmenter:
        batches = Feed(images, np.zeros(40, np.int64), 4, 3, augmenter).batches(1)
        next(batches)
        batches.close()

    with pytest.raises(StopIteration):
        next(batches)
