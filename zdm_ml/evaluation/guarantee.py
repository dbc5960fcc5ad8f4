"""What can be promised of the verdict ok: an escape rate that holds for castings to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zdm_ml.evaluation.bounds import castings_needed
from zdm_ml.evaluation.castings import Floats, group
from zdm_ml.evaluation.metrics import Scores, Targets
from zdm_ml.params import VerdictParams

AGGREGATION = "a casting escapes when any of its images would be passed: its lowest score counts"


@dataclass(frozen=True)
class Guarantee:
    """P(verdict ok | defective casting) <= `max_escape_rate` with `confidence`, if it `holds`.

    `castings` are the defective ones that it rests on, `missing` how many more would have to be
    there. `ok_below` is the highest threshold of the verdict ok that keeps it.
    """

    holds: bool
    max_escape_rate: float
    confidence: float
    castings: int
    missing: int
    ok_below: float | None
    reason: str
    aggregation: str = AGGREGATION


def guarantee(
    scores: Scores, targets: Targets, parts: Sequence[str], promise: VerdictParams, *, own: bool
) -> Guarantee:
    """Return what the calibration castings allow to promise.

    `scores` [N] are P(defect) by the net that will judge. `own` says that the castings stand on a
    side of their own: those that the net learnt from, or that other nets scored, prove nothing.
    """
    lowest = lowest_scores(scores, targets, parts)
    needed = castings_needed(promise.max_escape_rate, promise.confidence)
    missing = needed if not own else max(0, needed - len(lowest))
    limit = None if missing else ok_limit(lowest, promise.max_escape_rate, promise.confidence)
    return Guarantee(
        holds=limit is not None,
        max_escape_rate=promise.max_escape_rate,
        confidence=promise.confidence,
        castings=len(lowest) if own else 0,
        missing=missing,
        ok_below=limit,
        reason=_reason(promise, missing, own),
    )


def lowest_scores(scores: Scores, targets: Targets, parts: Sequence[str]) -> Floats:
    """Return the lowest score of each defective casting, [P]."""
    castings = group(targets, parts)
    lowest = np.full(len(castings.parts), np.inf)
    np.minimum.at(lowest, castings.place, scores)
    return lowest[castings.defective]


def ok_limit(lowest: Floats, max_rate: float, confidence: float) -> float | None:
    """Return the highest threshold below which a casting may be passed; None if none is proven.

    Learn then Test (Angelopoulos et al., arXiv 2110.01052): thresholds are tried from the
    strictest up. The one that passes k of the n defective castings has the exact binomial p-value
    P(Bin(n, `max_rate`) <= k); the first above 1 - `confidence` ends the search (a fixed sequence,
    so no correction). For continuous scores it is the limit of Wilks (Ann. Math. Stat. 12, 1941):
    the (k + 1)-th lowest score for the last such k, below which k castings lie.
    """
    from scipy.stats import binom

    p_values = binom.cdf(np.arange(len(lowest)), len(lowest), max_rate)
    proven = int(np.searchsorted(p_values, 1 - confidence, side="right"))
    return float(np.sort(lowest)[proven - 1]) if proven else None


def _reason(promise: VerdictParams, missing: int, own: bool) -> str:
    claim = f"an escape rate of at most {promise.max_escape_rate:.2%}"
    sure = f"at {100 * promise.confidence:g} %"
    if not own:
        return (
            "no guarantee: no calibration castings were held back from the net;"
            f" {missing} defective ones would be needed for {claim} {sure}"
        )
    if missing:
        noun = "casting" if missing == 1 else "castings"
        return f"no guarantee: {missing} more defective {noun} needed for {claim} {sure}"
    return f"{claim} among defective castings like those of the calibration side, {sure}"
