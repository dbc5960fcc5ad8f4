"""The order of training images and the batches made of it, one ahead of the net."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zdm_ml.data.augment import Augmenter

Images = npt.NDArray[np.uint8]
Targets = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]

_AHEAD = 3


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Return `count` shuffled indices in batches; the order depends on seed and epoch alone.

    A single left-over image joins the batch before it: batch normalisation needs two.
    """
    order = np.random.default_rng((seed, epoch, 0)).permutation(count)
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


@dataclass(frozen=True)
class Feed:
    """Training images, uint8 [N, S, S], and targets as augmented batches, epoch by epoch."""

    images: Images
    targets: Targets
    batch_size: int
    seed: int
    augmenter: Augmenter

    def batches(self, epoch: int) -> Iterator[tuple[Images, Targets]]:
        """Yield the epoch's batches, each made by a thread a few batches before it is asked."""

        def make(batch: Indices) -> tuple[Images, Targets]:
            return self.augmenter.batch(self.images[batch], epoch, batch), self.targets[batch]

        chosen = epoch_batches(len(self.images), self.batch_size, self.seed, epoch)
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            waiting = [pool.submit(make, batch) for batch in chosen[:_AHEAD]]
            try:
                for following in range(_AHEAD, _AHEAD + len(chosen)):
                    yield waiting.pop(0).result()
                    if following < len(chosen):
                        waiting.append(pool.submit(make, chosen[following]))
            finally:
                for future in waiting:
                    future.cancel()
