"""The threshold that goes with a model, and what it costs on castings that did not choose it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zdm_ml.data.manifest import Row
from zdm_ml.data.sides import rank
from zdm_ml.evaluation.castings import Castings, group
from zdm_ml.evaluation.metrics import Scores, Targets, weighted_cost
from zdm_ml.evaluation.thresholds import Threshold, choose_threshold, image_weights

OWN_SIDE = "calibration"
CROSS_FITTED = "val, cross-fitted"
IN_SAMPLE = "val, in sample"
CROSS_FITTED_NETS = "all castings outside test, by nets that did not see them"
GROUPS = 5


@dataclass(frozen=True)
class Calibration:
    """`threshold` is chosen on all calibration castings; `source` says what the figures are of.

    `escapes` and `overkills` count images, `cost` weighs each casting one. Under `CROSS_FITTED`
    every casting was judged by a threshold that the other groups of castings chose.
    """

    threshold: Threshold
    source: str
    castings: int
    defective: int
    groups: int
    escapes: int
    overkills: int
    cost: float

    def as_decision(self) -> dict[str, Any]:
        """Return what decision.json says."""
        return {
            "threshold": self.threshold.value,
            "positive": "defect",
            "overkill_weight": self.threshold.overkill_weight,
            "calibration": {
                "source": self.source,
                "images": self.threshold.images,
                "castings": self.castings,
                "castings_defect": self.defective,
                "castings_ok": self.castings - self.defective,
                "groups": self.groups,
                "escapes": self.escapes,
                "overkills": self.overkills,
                "cost": self.cost,
            },
        }


def calibrate(scores: Scores, rows: Sequence[Row], overkill_weight: float) -> Calibration:
    """Choose the threshold on the calibration castings, or cross-fitted on those of val.

    `scores` [N] belong to `rows`. Without a side of its own the figures come from up to `GROUPS`
    groups of val castings, each judged by the threshold that the others choose (Chernozhukov et
    al., Econometrics Journal 21, 2018, for the principle); one casting of a class is too few to
    leave one out, and the figures are those of the choice itself.
    """
    side = "calibration" if any(row.split == "calibration" for row in rows) else "val"
    chosen = [at for at, row in enumerate(rows) if row.split == side]
    targets = np.array([rows[at].target for at in chosen], dtype=np.int64)
    parts = [rows[at].part for at in chosen]
    return _calibrated(scores[chosen], targets, parts, overkill_weight, own=side == "calibration")


def calibrate_cross_fitted(
    scores: Scores, targets: Targets, parts: Sequence[str], overkill_weight: float
) -> Calibration:
    """Choose the threshold on castings that were scored by nets which did not see them.

    Its figures are cross-fitted once more: each casting is judged by the threshold of the others.
    """
    found = _calibrated(scores, targets, parts, overkill_weight, own=False)
    return replace(found, source=CROSS_FITTED_NETS)


def held_out_thresholds(
    scores: Scores, targets: Targets, parts: Sequence[str], overkill_weight: float, groups: int
) -> npt.NDArray[np.float64]:
    """Return for each image, [N], the threshold that the castings of other groups choose."""
    castings = group(targets, parts)
    member = dealt(castings, groups)[castings.place]
    found = np.empty(len(targets))
    for number in range(groups):
        held, others = member == number, np.flatnonzero(member != number).tolist()
        names = [parts[at] for at in others]
        chosen = choose_threshold(scores[others], targets[others], overkill_weight, names)
        found[held] = chosen.value
    return found


def _calibrated(
    scores: Scores, targets: Targets, parts: Sequence[str], overkill_weight: float, *, own: bool
) -> Calibration:
    final = choose_threshold(scores, targets, overkill_weight, parts)
    castings = group(targets, parts)
    defective = int(castings.defective.sum())
    groups = 1 if own else min(GROUPS, defective, len(castings.parts) - defective)
    at: npt.NDArray[np.float64] | float = final.value
    if groups >= 2:
        at = held_out_thresholds(scores, targets, parts, overkill_weight, groups)
    weights = image_weights(targets, parts)
    missed, rejected = (targets == 1) & (scores < at), (targets == 0) & (scores >= at)
    return Calibration(
        threshold=final,
        source=OWN_SIDE if own else CROSS_FITTED if groups >= 2 else IN_SAMPLE,
        castings=len(castings.parts),
        defective=defective,
        groups=max(groups, 1),
        escapes=int(missed.sum()),
        overkills=int(rejected.sum()),
        cost=weighted_cost(weights[missed].sum(), weights[rejected].sum(), overkill_weight),
    )


def dealt(castings: Castings, groups: int) -> npt.NDArray[np.int64]:
    """Return each casting's group, [P]: each class is dealt to `groups` in turn, by its hashes."""
    ranks = [rank(0, part) for part in castings.parts]
    order = sorted(range(len(ranks)), key=lambda at: ranks[at])
    member = np.empty(len(ranks), dtype=np.int64)
    for stratum in (castings.defective, ~castings.defective):
        in_turn = [at for at in order if stratum[at]]
        member[in_turn] = np.arange(len(in_turn)) % groups
    return member
