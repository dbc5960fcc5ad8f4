"""From similar pairs to groups: a merge needs the support of both groups, not of one pair."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

Block = Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[np.float32]]
"""Give two lists of items, get the matrix of their similarities."""

SUPPORT = 5
"""Members of each group that are compared before two groups become one."""

ORPHANS = 2
"""A group of at most so many members may be adopted by a larger one."""


class Groups:
    """Items 0..n-1 in groups that grow by merging; each item starts alone."""

    def __init__(self, count: int, compare: Block, threshold: float) -> None:
        self._of = np.arange(count)
        self._members: dict[int, list[int]] = {item: [item] for item in range(count)}
        self._compare, self._threshold = compare, threshold

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The group of each item: the number of its first member."""
        return self._of.copy()

    def merge(self, pairs: Iterable[tuple[int, int]]) -> int:
        """Merge the groups of each pair where the mean similarity across is high enough.

        Pairs come the most similar first. Up to `SUPPORT` members of each side, evenly spread,
        are compared: one false pair between two groups is outvoted. Returns the number of merges.
        """
        merged, refused = 0, set[tuple[int, int, int, int]]()
        for left, right in pairs:
            first, second = sorted((int(self._of[left]), int(self._of[right])))
            key = (len(self._members[first]), len(self._members[second]))
            if first == second or (first, second, *key) in refused:
                continue
            if not self._supported(self._members[first], self._members[second]):
                refused.add((first, second, *key))
                continue
            self._join(first, second)
            merged += 1
        return merged

    def adopt(self, pairs: Iterable[tuple[int, int]], least: float) -> int:
        """Let each small group join the larger one whose members it is most like on average.

        A pair of images is one observation; the mean over a whole group is many, so `least` may
        lie below the threshold of pairs. Returns the number of adoptions.
        """
        offers: dict[int, set[int]] = {}
        for pair in pairs:
            small, large = sorted((int(self._of[item]) for item in pair), key=self._size)
            if self._size(small) <= ORPHANS and self._size(large) > ORPHANS:
                offers.setdefault(small, set()).add(large)
        for small, large in ((small, self._closest(small, offers[small])) for small in offers):
            if self._likeness(small, large) >= least:
                self._join(large, small)
                offers[small] = set()
        return sum(1 for wanted in offers.values() if not wanted)

    def support(self, first: int, second: int) -> float:
        """Return the mean similarity of up to `SUPPORT` members of each of two groups."""
        return self._support(self._members[first], self._members[second])

    def representatives(self, most: int = 3) -> npt.NDArray[np.int64]:
        """Return up to `most` members of each group, evenly spread."""
        return np.concatenate([_spread(items, most) for items in self._members.values()])

    def _size(self, group: int) -> int:
        return len(self._members[group])

    def _likeness(self, first: int, second: int) -> float:
        left, right = (np.array(self._members[group]) for group in (first, second))
        return float(self._compare(left, right).mean())

    def _closest(self, group: int, others: Iterable[int]) -> int:
        return max(sorted(others), key=lambda other: self._likeness(group, other))

    def _supported(self, first: list[int], second: list[int]) -> bool:
        if len(first) == len(second) == 1:
            return True
        return self._support(first, second) >= self._threshold

    def _support(self, first: list[int], second: list[int]) -> float:
        return float(self._compare(_spread(first, SUPPORT), _spread(second, SUPPORT)).mean())

    def _join(self, first: int, second: int) -> None:
        moved = self._members.pop(second)
        self._members[first] += moved
        self._of[moved] = first


def _spread(items: list[int], most: int) -> npt.NDArray[np.int64]:
    if len(items) <= most:
        return np.array(items, dtype=np.int64)
    places = np.linspace(0, len(items) - 1, most).round().astype(int)
    return np.array([items[place] for place in places], dtype=np.int64)
