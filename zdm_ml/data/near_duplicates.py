"""Near duplicates: different files that show the same casting in the same pose and light."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.images import Grey, decode_grey
from zdm_ml.data.manifest import Row

SIDE = 30
TOLERANCE = 3.0
"""Mean difference of two thumbnails, in grey levels, below which they count as the same."""

FEATURE_TOLERANCE = 6.0
"""Difference in any feature, in grey levels, that rules a near duplicate out unseen."""

SUCCESSORS = 200
"""Images of one casting, in order of brightness, with which each one is compared."""

THREADS = 4
Features = Mapping[str, npt.NDArray[np.float32]]


def near_duplicates(folder: Path, rows: Iterable[Row], features: Features) -> list[list[str]]:
    """Return groups of paths, each group sorted, whose pictures are almost the same unturned.

    Only images of one part with much the same `features` (the first one: mean grey) are compared;
    files with the same bytes count as one, under the first path.
    """
    first: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.path):
        if row.path in features:
            first.setdefault(row.sha256, row)
    by_part = defaultdict(list)
    for row in first.values():
        by_part[row.part].append(row.path)
    pairs = [pair for paths in by_part.values() for pair in _candidates(paths, features)]
    thumbnails = _thumbnails(folder, sorted({path for pair in pairs for path in pair}))
    return _groups(pair for pair in pairs if _alike(*(thumbnails[path] for path in pair)))


def thumbnail(grey: Grey) -> Grey:
    """Return a picture's thumbnail, uint8 [30, 30], for uint8 [H, W] of any size."""
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _candidates(paths: Sequence[str], features: Features) -> Iterator[tuple[str, str]]:
    table = np.stack([features[path] for path in paths])
    order = np.argsort(table[:, 0], kind="stable")
    for position, index in enumerate(order):
        after = order[position + 1 : position + 1 + SUCCESSORS]
        # Two thumbnails differ by at least the difference of their means.
        after = after[table[after, 0] - table[index, 0] < TOLERANCE]
        close = (np.abs(table[after] - table[index]) < FEATURE_TOLERANCE).all(axis=1)
        for other in after[close]:
            yield paths[int(index)], paths[int(other)]


def _thumbnails(folder: Path, paths: Sequence[str]) -> dict[str, Grey]:
    def one(path: str) -> Grey:
        return thumbnail(decode_grey(folder / path, max_pixels=None))

    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(paths, pool.map(one, paths), strict=True))


def _alike(one: Grey, other: Grey) -> bool:
    return float(cv2.absdiff(one, other).mean()) < TOLERANCE


def _groups(pairs: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return the connected groups of pairs."""
    leader: dict[str, str] = {}

    def find(path: str) -> str:
        while leader.setdefault(path, path) != path:
            path = leader[path]
        return path

    for one, other in pairs:
        leader[find(other)] = find(one)
    groups = defaultdict(list)
    for path in leader:
        groups[find(path)].append(path)
    return sorted(sorted(group) for group in groups.values())
