"""The thresholds that go with a model, from calibration castings, and what they do to these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zdm_ml.data.manifest import Row
from zdm_ml.evaluation.castings import dealt, group
from zdm_ml.evaluation.cost import expected_cost, overkill_weight
from zdm_ml.evaluation.guarantee import Guarantee, guarantee
from zdm_ml.evaluation.metrics import Scores, Targets
from zdm_ml.evaluation.reliability import fit_temperature
from zdm_ml.evaluation.thresholds import Threshold, choose_threshold
from zdm_ml.evaluation.verdicts import Verdicts, choose_verdicts
from zdm_ml.params import CostParams, VerdictParams

OWN_SIDE = "calibration"
CROSS_FITTED = "val, cross-fitted"
IN_SAMPLE = "val, in sample"
CROSS_FITTED_NETS = "all castings outside test, by nets that did not see them"
GROUPS = 5


@dataclass(frozen=True)
class Calibration:
    """`threshold` is chosen on all calibration castings; `source` says what the figures are of.

    `escapes` and `overkills` count images at it, `cost` is money per 10,000 parts. Under
    `CROSS_FITTED` every casting was judged by a threshold that the other groups of castings chose.
    `verdicts` part from the threshold only where a guarantee holds.
    """

    threshold: Threshold
    verdicts: Verdicts
    guarantee: Guarantee
    temperature: float
    costs: CostParams
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
            "positive": "defect",
            "threshold": self.threshold.value,
            "ok_below": self.verdicts.ok_below,
            "defect_from": self.verdicts.defect_from,
            "guarantee": asdict(self.guarantee),
            "temperature": self.temperature,
            "costs": asdict(self.costs),
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


def calibrate(
    scores: Scores, rows: Sequence[Row], cost: CostParams, promise: VerdictParams
) -> Calibration:
    """Choose the thresholds on the calibration castings, or cross-fitted on those of val.

    `scores` [N] belong to `rows`. Without a side of its own the figures come from up to `GROUPS`
    groups of val castings, each judged by the threshold that the others choose (Chernozhukov et
    al., Econometrics Journal 21, 2018, for the principle); one casting of a class is too few to
    leave one out, and the figures are those of the choice itself.
    """
    side = "calibration" if any(row.split == "calibration" for row in rows) else "val"
    chosen = [at for at, row in enumerate(rows) if row.split == side]
    targets = np.array([rows[at].target for at in chosen], dtype=np.int64)
    parts = [rows[at].part for at in chosen]
    return _calibrated(scores[chosen], targets, parts, cost, promise, own=side == "calibration")


def calibrate_cross_fitted(
    scores: Scores,
    targets: Targets,
    parts: Sequence[str],
    cost: CostParams,
    promise: VerdictParams,
) -> Calibration:
    """Choose the threshold on castings that were scored by nets which did not see them.

    Its figures are cross-fitted once more: each casting is judged by the threshold of the others.
    """
    found = _calibrated(scores, targets, parts, cost, promise, own=False)
    return replace(found, source=CROSS_FITTED_NETS)


def cost_threshold(
    scores: Scores, targets: Targets, parts: Sequence[str], cost: CostParams
) -> Threshold:
    """Return the threshold of lowest expected cost at the plant, each casting weighing one."""
    castings = group(targets, parts)
    defective = int(castings.defective.sum())
    weight = overkill_weight(cost, defective, len(castings.parts) - defective)
    return choose_threshold(scores, targets, weight, parts)


def held_out_thresholds(
    scores: Scores, targets: Targets, parts: Sequence[str], cost: CostParams, groups: int
) -> npt.NDArray[np.float64]:
    """Return for each image, [N], the threshold that the castings of other groups choose."""
    castings = group(targets, parts)
    member = dealt(castings, groups)[castings.place]
    found = np.empty(len(targets))
    for number in range(groups):
        held, others = member == number, np.flatnonzero(member != number).tolist()
        names = [parts[at] for at in others]
        found[held] = cost_threshold(scores[others], targets[others], names, cost).value
    return found


def _calibrated(
    scores: Scores,
    targets: Targets,
    parts: Sequence[str],
    cost: CostParams,
    promise: VerdictParams,
    *,
    own: bool,
) -> Calibration:
    final = cost_threshold(scores, targets, parts, cost)
    promised = guarantee(scores, targets, parts, promise, own=own)
    verdicts = Verdicts(final.value, final.value)
    if promised.ok_below is not None:
        verdicts = choose_verdicts(scores, targets, parts, cost, promised.ok_below)
    castings = group(targets, parts)
    defective = int(castings.defective.sum())
    groups = 1 if own else min(GROUPS, defective, len(castings.parts) - defective)
    at = np.full(len(targets), final.value)
    if groups >= 2:
        at = held_out_thresholds(scores, targets, parts, cost, groups)
    missed, rejected = (targets == 1) & (scores < at), (targets == 0) & (scores >= at)
    # Each image has a threshold of its own: what lies at or above it is judged a defect.
    judged = (scores >= at).astype(np.float64)
    return Calibration(
        threshold=final,
        verdicts=verdicts,
        guarantee=promised,
        temperature=fit_temperature(scores, targets, parts),
        costs=cost,
        source=OWN_SIDE if own else CROSS_FITTED if groups >= 2 else IN_SAMPLE,
        castings=len(castings.parts),
        defective=defective,
        groups=max(groups, 1),
        escapes=int(missed.sum()),
        overkills=int(rejected.sum()),
        cost=expected_cost(cost, Verdicts(1.0, 1.0).rates(judged, targets, parts)),
    )
