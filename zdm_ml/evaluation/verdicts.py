"""The three-way verdict: ok, defect, or review, where a person looks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from zdm_ml.evaluation.castings import group
from zdm_ml.evaluation.cost import Rates
from zdm_ml.evaluation.metrics import Scores, Targets
from zdm_ml.evaluation.thresholds import cuts, error_curves, image_weights
from zdm_ml.params import CostParams

Verdict = Literal["ok", "defect", "review"]
Curve = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

NO_GUARANTEE = "no guarantee: none was computed for this model"


@dataclass(frozen=True)
class Verdicts:
    """A score below `ok_below` is ok, one from `defect_from` on a defect, one between is reviewed.

    Without a guarantee both are the cost threshold, and nothing is reviewed.
    """

    ok_below: float
    defect_from: float

    def of(self, score: float) -> Verdict:
        """Return the verdict on a finite score."""
        if score < self.ok_below:
            return "ok"
        return "defect" if score >= self.defect_from else "review"

    def rates(self, scores: Scores, targets: Targets, parts: Sequence[str]) -> Rates:
        """Return what happens to castings, each weighing one, an image its share of its casting.

        A class that is not there has rates of 0.
        """
        weights = image_weights(targets, parts)
        castings = group(targets, parts)
        defective = max(1, int(castings.defective.sum()))
        good = max(1, len(castings.parts) - int(castings.defective.sum()))
        passed, rejected = scores < self.ok_below, scores >= self.defect_from
        reviewed = ~passed & ~rejected
        defect = targets == 1
        return Rates(
            escaped=float(weights[passed & defect].sum()) / defective,
            rejected=float(weights[rejected & ~defect].sum()) / good,
            reviewed_defective=float(weights[reviewed & defect].sum()) / defective,
            reviewed_good=float(weights[reviewed & ~defect].sum()) / good,
        )


@dataclass(frozen=True)
class Ruling:
    """What decision.json says: how scores become verdicts, and what is promised of them.

    `threshold` is the one that binary figures are of; `statement` is the guarantee in words, or
    why there is none.
    """

    verdicts: Verdicts
    threshold: float
    guaranteed: bool
    statement: str


def at_threshold(threshold: float) -> Ruling:
    """Return a ruling without review and without a guarantee."""
    return Ruling(Verdicts(threshold, threshold), threshold, False, NO_GUARANTEE)


def read_ruling(decision: Mapping[str, Any]) -> Ruling:
    """Return the ruling of a decision.json; one that cannot be followed raises `ValueError`.

    One from before there were three verdicts has a threshold alone, and no guarantee.
    """
    if decision.get("positive") != "defect":
        raise ValueError("it is not about defects")
    threshold = _finite(decision.get("threshold"))
    low = _finite(decision.get("ok_below", threshold))
    high = _finite(decision.get("defect_from", threshold))
    if low > high:
        raise ValueError(f"ok below {low!r}, but a defect from {high!r} on")
    promised = decision.get("guarantee") or {}
    return Ruling(
        Verdicts(low, high),
        threshold,
        promised.get("holds") is True,
        str(promised.get("reason", NO_GUARANTEE)),
    )


def _finite(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"threshold {value!r}")
    return float(value)


def choose_verdicts(
    scores: Scores, targets: Targets, parts: Sequence[str], cost: CostParams, limit: float
) -> Verdicts:
    """Return the pair of lowest expected cost whose `ok_below` is at most `limit`.

    The cost of a pair is one term of `ok_below` plus one of `defect_from`: passing rather than
    reviewing, and rejecting rather than reviewing. So each is chosen by itself, the second at or
    above the first. Ties go to the widest gap between scores, then to the lower threshold.
    """
    levels, place = np.unique(scores, return_inverse=True)
    escapes, overkills = error_curves(place, targets, image_weights(targets, parts))
    values, gaps = cuts(levels)
    defective, good = escapes[-1] or 1.0, overkills[0] or 1.0
    of_defective, of_good = cost.prevalence, 1 - cost.prevalence
    passing = (
        of_defective * (cost.escape - cost.review) * np.array(escapes) / defective
        - of_good * cost.review * (good - np.array(overkills)) / good
    )
    rejecting = (
        of_good * (cost.overkill - cost.review) * np.array(overkills) / good
        - of_defective * cost.review * (defective - np.array(escapes)) / defective
    )
    below = np.append(-np.inf, levels)  # what lies just below each cut, and what just above
    above = np.append(levels, np.inf)
    low = _cheapest(passing, np.minimum(values, limit), gaps, below < limit)
    high = _cheapest(rejecting, np.maximum(values, low), gaps, above >= low)
    return Verdicts(low, high)


def _cheapest(costs: Curve, values: Curve, gaps: Sequence[float], allowed: Flags) -> float:
    """Return the allowed threshold of lowest cost, then of the widest gap, then the lowest."""
    ranked = [
        (round(float(cost), 9), -gap, float(value))
        for cost, gap, value, may in zip(costs, gaps, values, allowed, strict=True)
        if may
    ]
    return min(ranked)[2]
