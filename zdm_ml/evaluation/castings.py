"""Images grouped by the physical casting that they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zdm_ml.data.manifest import CLASSES
from zdm_ml.data.sides import rank
from zdm_ml.evaluation.metrics import Scores, Targets, check

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

AGGREGATION = "a casting is wrong when at least half of its images are judged wrong"


@dataclass(frozen=True)
class Castings:
    """P castings of N images: `place` [N] gives each image's casting, the counts are [P].

    `defects` and `good` count a casting's images by class.
    """

    parts: tuple[str, ...]
    place: Counts
    defects: Counts
    good: Counts

    @property
    def images(self) -> Counts:
        """Count the images of each casting, [P]."""
        return self.defects + self.good

    @property
    def defective(self) -> npt.NDArray[np.bool_]:
        """Tell the castings with any image of a defect, [P]."""
        return self.defects > 0

    def sums(self, values: npt.NDArray[Any]) -> Floats:
        """Return the sums over each casting's images: [..., N] becomes float64 [..., P]."""
        order = np.argsort(self.place, kind="stable")
        starts = np.concatenate([[0], np.cumsum(self.images)[:-1]])
        sorted_values = np.asarray(values, dtype=np.float64)[..., order]
        return np.add.reduceat(sorted_values, starts, axis=-1)


def group(targets: Targets, parts: Sequence[str]) -> Castings:
    """Group images by casting, sorted by part: `targets` [N] are 0 or 1, `parts` [N] name them."""
    names, place = np.unique(np.asarray(parts, dtype=np.str_), return_inverse=True)
    images = np.bincount(place, minlength=len(names))
    defects = np.bincount(place[targets == 1], minlength=len(names))
    return Castings(tuple(str(name) for name in names), place, defects, images - defects)


def casting_records(
    scores: Scores,
    targets: Targets,
    parts: Sequence[str],
    ok_below: float,
    defect_from: float,
) -> list[dict[str, Any]]:
    """Return one record per casting, sorted by part: its images, how many are judged wrong.

    `mean_score` is the mean P(defect) of its images, `failed` follows `AGGREGATION`. `review`,
    between the two thresholds, is neither wrong nor right; `right` castings have most of their
    images judged right.
    """
    check(scores, targets)
    castings, defect = group(targets, parts), targets == 1
    passed, rejected = scores < ok_below, scores >= defect_from
    wrong = castings.sums(np.where(defect, passed, rejected))
    right = castings.sums(np.where(defect, rejected, passed))
    means = castings.sums(scores) / castings.images
    return [
        {
            "part": part,
            "label": CLASSES[int(castings.defective[at])],
            "images": int(castings.images[at]),
            "wrong": int(wrong[at]),
            "mean_score": float(means[at]),
            "failed": bool(2 * wrong[at] >= castings.images[at]),
            "right": bool(2 * right[at] > castings.images[at]),
        }
        for at, part in enumerate(castings.parts)
    ]


def dealt(castings: Castings, groups: int) -> Counts:
    """Return each casting's group, [P]: each class is dealt to `groups` in turn, by its hashes."""
    ranks = [rank(0, part) for part in castings.parts]
    order = sorted(range(len(ranks)), key=lambda at: ranks[at])
    member = np.empty(len(ranks), dtype=np.int64)
    for stratum in (castings.defective, ~castings.defective):
        in_turn = [at for at in order if stratum[at]]
        member[in_turn] = np.arange(len(in_turn)) % groups
    return member
