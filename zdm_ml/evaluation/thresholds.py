"""Where a score becomes a verdict: the threshold with the lowest cost on calibration castings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zdm_ml.evaluation.castings import group
from zdm_ml.evaluation.metrics import (
    ABOVE_EVERY_SCORE,
    Scores,
    Targets,
    check,
    weighted_cost,
)


@dataclass(frozen=True)
class Threshold:
    """`value` and its errors on the images that it was chosen on.

    `cost` is in escapes and weighs each casting one: an image's error counts as its share of its
    casting.
    """

    value: float
    images: int
    escapes: int
    overkills: int
    cost: float


def choose_threshold(
    scores: Scores,
    targets: Targets,
    overkill_weight: float,
    parts: Sequence[str] | None = None,
) -> Threshold:
    """Return the threshold with the lowest escapes + `overkill_weight` x overkills.

    `parts` [N] names the casting of each image, and each casting weighs one: many views of one
    casting are no more evidence than one. Without it every image is a casting of its own.

    Thresholds lie midway between neighbouring scores (0 and 1 stand beside the outermost). Among
    equal costs the widest gap wins, where a new image is least likely to fall on the wrong side;
    then the lower threshold, which passes less.
    """
    check(scores, targets)
    levels, place = np.unique(scores, return_inverse=True)
    escapes, overkills = error_curves(place, targets, image_weights(targets, parts))
    values, gaps = cuts(levels)
    ranked = [
        (weighted_cost(escapes[cut], overkills[cut], overkill_weight), -gaps[cut], cut)
        for cut in range(len(values))
    ]
    cost, _, cut = min(ranked)
    judged = scores >= values[cut]
    return Threshold(
        value=values[cut],
        images=len(targets),
        escapes=int((~judged & (targets == 1)).sum()),
        overkills=int((judged & (targets == 0)).sum()),
        cost=cost,
    )


def image_weights(targets: Targets, parts: Sequence[str] | None) -> npt.NDArray[np.float64]:
    """Return each image's share of its casting, [N]: 1 / images of the casting."""
    if parts is None:
        return np.ones(len(targets))
    castings = group(targets, parts)
    shares: npt.NDArray[np.float64] = 1.0 / castings.images[castings.place]
    return shares


def error_curves(
    place: npt.NDArray[np.int64], targets: Targets, weights: npt.NDArray[np.float64]
) -> tuple[list[float], list[float]]:
    """Return the weighted escapes and overkills of each cut, `place` [N] being images' levels.

    Cut i judges the levels from i on a defect: levels below it are passed.
    """
    defects = np.bincount(place, weights=weights * (targets == 1))
    good = np.bincount(place, weights=weights * (targets == 0))
    escapes = np.concatenate([[0.0], np.cumsum(defects)])
    overkills = np.concatenate([np.cumsum(good[::-1])[::-1], [0.0]])
    return escapes.tolist(), overkills.tolist()


def cuts(levels: Scores) -> tuple[list[float], list[float]]:
    """Return a threshold below each level and one above all, with the gaps that they lie in."""
    edges = np.concatenate([[0.0], levels, [1.0]])
    middles = (edges[:-1] + edges[1:]) / 2
    # Between neighbouring floats the middle may round down onto the lower one.
    middles[:-1] = np.where(middles[:-1] > edges[:-2], middles[:-1], edges[1:-1])
    values = [float(value) for value in middles]
    if values[-1] <= levels[-1]:
        values[-1] = ABOVE_EVERY_SCORE
    return values, [float(gap) for gap in np.diff(edges)]
