"""Where a score becomes a verdict: the threshold with the lowest cost on calibration images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zdm_ml.evaluation.metrics import (
    ABOVE_EVERY_SCORE,
    Scores,
    Targets,
    check,
    weighted_cost,
)


@dataclass(frozen=True)
class Threshold:
    """`value` and what it costs on the calibration images that it was chosen on."""

    value: float
    overkill_weight: float
    images: int
    escapes: int
    overkills: int
    cost: float


def choose_threshold(scores: Scores, targets: Targets, overkill_weight: float) -> Threshold:
    """Return the threshold with the lowest escapes + `overkill_weight` x overkills.

    Thresholds lie midway between neighbouring scores (0 and 1 stand beside the outermost). Among
    equal costs the widest gap wins, where a new image is least likely to fall on the wrong side;
    then the lower threshold, which passes less.
    """
    check(scores, targets)
    levels, place = np.unique(scores, return_inverse=True)
    defects = np.bincount(place, weights=targets == 1, minlength=len(levels)).astype(int)
    good = np.bincount(place, weights=targets == 0, minlength=len(levels)).astype(int)
    # Cut i judges the levels from i on a defect: levels below it are passed.
    escapes = np.concatenate([[0], np.cumsum(defects)])
    overkills = good.sum() - np.concatenate([[0], np.cumsum(good)])
    values, gaps = _cuts(levels)
    ranked = [
        (weighted_cost(int(escapes[cut]), int(overkills[cut]), overkill_weight), -gaps[cut], cut)
        for cut in range(len(values))
    ]
    cost, _, cut = min(ranked)
    return Threshold(
        value=values[cut],
        overkill_weight=overkill_weight,
        images=len(targets),
        escapes=int(escapes[cut]),
        overkills=int(overkills[cut]),
        cost=cost,
    )


def decision(threshold: Threshold) -> dict[str, Any]:
    """Return what decision.json says."""
    return {
        "threshold": threshold.value,
        "positive": "defect",
        "overkill_weight": threshold.overkill_weight,
        "calibration": {
            "images": threshold.images,
            "escapes": threshold.escapes,
            "overkills": threshold.overkills,
            "cost": threshold.cost,
        },
    }


def _cuts(levels: Scores) -> tuple[list[float], list[float]]:
    """Return a threshold below each level and one above all, with the gaps that they lie in."""
    edges = np.concatenate([[0.0], levels, [1.0]])
    middles = (edges[:-1] + edges[1:]) / 2
    # Between neighbouring floats the middle may round down onto the lower one.
    middles[:-1] = np.where(middles[:-1] > edges[:-2], middles[:-1], edges[1:-1])
    values = [float(value) for value in middles]
    if values[-1] <= levels[-1]:
        values[-1] = ABOVE_EVERY_SCORE
    return values, [float(gap) for gap in np.diff(edges)]
