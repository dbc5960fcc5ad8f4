"""Which images an epoch shows in which order, and the batches made of them ahead of the net."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from zdm_ml.data.augment import Augmenter, partner_rows
from zdm_ml.data.draws import draws
from zdm_ml.recipes import Sampling
from zdm_ml.training.sides import Indices, Side, Targets

Inputs = npt.NDArray[np.float32]
Item = TypeVar("Item")
Made = TypeVar("Made")

_AHEAD = 3


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[Indices]:
    """Return `count` shuffled indices in batches; the order depends on seed and epoch alone."""
    return in_batches(np.random.default_rng((seed, epoch, 0)).permutation(count), batch_size)


def in_batches(order: Indices, batch_size: int) -> list[Indices]:
    """Cut an order into batches.

    A single left-over image joins the batch before it: batch normalisation needs two.
    """
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def castings_evenly(side: Side, draws: int, seed: int, epoch: int, *, good: float = 0.5) -> Indices:
    """Return `draws` shuffled indices into a side: each casting of a class as often as the next.

    `good` is the share of good parts; where one class is missing all draws are of the other. A
    casting's images come in turn: none twice before each was there once. Seed and epoch alone
    decide.
    """
    rng = np.random.default_rng((seed, epoch, 0))
    members = [np.flatnonzero(side.targets == label) for label in (0, 1)]
    present = [len(found) > 0 for found in members]
    first = round(draws * good) if all(present) else draws * present[0]
    order = [
        _evenly(found, side.castings, share, rng)
        for found, share in zip(members, (first, draws - first), strict=True)
    ]
    return rng.permutation(np.concatenate(order))


def _evenly(members: Indices, castings: Indices, draws: int, rng: np.random.Generator) -> Indices:
    parts = rng.permutation(np.unique(castings[members]))
    found = []
    for at, part in enumerate(parts):
        images = members[castings[members] == part]
        wanted = draws // len(parts) + (at < draws % len(parts))
        rounds = [rng.permutation(images) for _ in range(-(-wanted // len(images)))]
        found += rounds and [np.concatenate(rounds)[:wanted]]
    return np.concatenate(found) if found else members[:0]


@dataclass(frozen=True)
class Epochs:
    """Which of a side's images each epoch shows, batch by batch.

    `good` is the share of good parts that sampling `castings` draws, `share` is (rank, processes)
    of a batch.
    """

    side: Side
    sampling: Sampling
    images_per_epoch: int | None
    batch_size: int
    seed: int
    _: KW_ONLY
    good: float = 0.5
    share: tuple[int, int] = (0, 1)

    @property
    def count(self) -> int:
        """How many images an epoch shows."""
        if self.sampling == "castings" and self.images_per_epoch:
            return self.images_per_epoch
        return len(self.side)

    def order(self, epoch: int) -> list[Indices]:
        """Return the epoch's batches as indices into the side."""
        if self.sampling == "images":
            return epoch_batches(len(self.side), self.batch_size, self.seed, epoch)
        drawn = castings_evenly(self.side, self.count, self.seed, epoch, good=self.good)
        return in_batches(drawn, self.batch_size)

    def partners(self, epoch: int, places: Indices) -> Indices | None:
        """Return the good image that each place may be mixed with, None where there is none."""
        castings, good = self._good
        if len(good) == 0:
            return None
        return partner_rows(draws(self.seed, epoch, places).partner, castings, good)

    @cached_property
    def _good(self) -> tuple[Indices, Indices]:
        """Castings of the side's good images, sorted, and these images."""
        good = np.flatnonzero(self.side.targets == 0)
        good = good[np.argsort(self.side.castings[good], kind="stable")]
        return self.side.castings[good], good

    def shares(self, epoch: int) -> list[tuple[Indices, Indices]]:
        """Return this process's share of each batch: indices into the side, places in the epoch.

        A batch with fewer than two images for each process goes to all of them whole, because
        batch normalisation needs two.
        """
        rank, processes = self.share
        shares, start = [], 0
        for batch in self.order(epoch):
            places = np.arange(start, start + len(batch))
            own = slice(rank, None, processes) if len(batch) >= 2 * processes else slice(None)
            shares.append((batch[own], places[own]))
            start += len(batch)
        return shares


@dataclass(frozen=True)
class Feed(Epochs):
    """A side as augmented batches, epoch by epoch."""

    augmenter: Augmenter

    def batches(self, epoch: int) -> Iterator[tuple[Inputs, Targets]]:
        """Yield float32 [B, S, S] and targets, each made by a thread a few batches ahead."""

        return ahead(lambda share: self.shown(epoch, *share), self.shares(epoch))

    def shown(self, epoch: int, chosen: Indices, places: Indices) -> tuple[Inputs, Targets]:
        """Return float32 [B, S, S] and targets of the chosen images at places of an epoch."""
        side = self.side
        partners = self.partners(epoch, places) if self.augmenter.mixes else None
        others = None if partners is None else side.pictures(partners)
        targets = side.targets[chosen]
        return self.augmenter.batch(side.pictures(chosen), targets, epoch, places, others)


def ahead(make: Callable[[Item], Made], items: Sequence[Item]) -> Generator[Made, None, None]:
    """Yield what a thread makes of each item, a few items before it is asked for."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        waiting = [pool.submit(make, item) for item in items[:_AHEAD]]
        try:
            for following in range(_AHEAD, _AHEAD + len(items)):
                yield waiting.pop(0).result()
                if following < len(items):
                    waiting.append(pool.submit(make, items[following]))
        finally:
            for future in waiting:
                future.cancel()
