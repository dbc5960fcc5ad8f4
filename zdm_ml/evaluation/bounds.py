"""What counts of castings prove: exact bounds on the rates of errors, each casting weighing one.

Views of one casting are no independent evidence, so images are not counted here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.special import betainccinv, betaincinv

from zdm_ml.data.manifest import CLASSES
from zdm_ml.evaluation.castings import AGGREGATION, casting_records
from zdm_ml.evaluation.metrics import Scores, Targets
from zdm_ml.evaluation.verdicts import Verdicts

_MATTERS = {
    "escape_rate": "upper",
    "overkill_rate": "upper",
    "accuracy": "lower",
    "recall": "lower",
}


def exact_interval(cases: int, total: int, confidence: float) -> tuple[float, float] | None:
    """Return the two-sided bounds on a rate (Clopper and Pearson, Biometrika 26, 1934).

    None where nothing was counted.
    """
    tail = (1 - confidence) / 2
    return (_lower(cases, total, tail), _upper(cases, total, tail)) if total else None


def upper_bound(cases: int, total: int, confidence: float) -> float | None:
    """Return the exact one-sided bound that a rate stays below; None where nothing was counted."""
    return _upper(cases, total, 1 - confidence) if total else None


def lower_bound(cases: int, total: int, confidence: float) -> float | None:
    """Return the exact one-sided bound that a rate stays above; None where nothing was counted."""
    return _lower(cases, total, 1 - confidence) if total else None


def castings_needed(max_rate: float, confidence: float) -> int:
    """Return how many castings must pass without one error to claim a rate of `max_rate` at most.

    The exact form of the rule of three: at 95 % about 3 / `max_rate`. Both arguments lie between
    0 and 1, exclusive, or `ValueError` is raised.
    """
    if not (0 < max_rate < 1 and 0 < confidence < 1):
        raise ValueError(f"max_rate {max_rate} and confidence {confidence} must be in (0, 1)")
    exact = math.log1p(-confidence) / math.log1p(-max_rate)
    # A quotient that is whole but for its last bits is that whole number.
    return max(1, math.ceil(exact - 1e-9))


def castings_missing(cases: int, total: int, max_rate: float, confidence: float) -> int:
    """Return how many more castings without a case would bound the rate by `max_rate`.

    0 where `total` with `cases` among them already does.
    """
    if not 0 < max_rate <= 1:
        raise ValueError(f"max_rate {max_rate} must be in (0, 1]")

    def enough(more: int) -> bool:
        return total + more > 0 and _upper(cases, total + more, 1 - confidence) <= max_rate

    below, above = -1, 0
    while not enough(above):
        below, above = above, max(1, 2 * above)
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if enough(middle) else (middle, above)
    return above


def by_casting(
    scores: Scores, targets: Targets, parts: Sequence[str], verdicts: Verdicts, confidence: float
) -> dict[str, Any]:
    """Return counts, rates and exact bounds by casting, and the castings that failed.

    `scores` [N] are P(defect), `targets` [N] are 0 or 1. What is to be reviewed has neither escaped
    nor been rejected, and counts as judged right for neither accuracy nor recall; `reviewed` counts
    those castings. Escape rate, overkill rate, accuracy and recall come with their two-sided bounds
    `*_low` and `*_high` and the one-sided bound that matters, `*_upper` or `*_lower`; all are None
    without a case. The bounds take the castings for a random sample of those to come.
    """
    records = casting_records(scores, targets, parts, verdicts.ok_below, verdicts.defect_from)
    total = {label: sum(record["label"] == label for record in records) for label in CLASSES}
    failed = [record for record in records if record["failed"]]
    right = [record for record in records if record["right"]]
    escapes = sum(record["label"] == "defect" for record in failed)
    overkills, castings = len(failed) - escapes, len(records)
    found = sum(record["label"] == "defect" for record in right)
    counts = {
        "escape_rate": (escapes, total["defect"]),
        "overkill_rate": (overkills, total["ok"]),
        "accuracy": (len(right), castings),
        "recall": (found, total["defect"]),
    }
    return {
        "aggregation": AGGREGATION,
        "confidence": confidence,
        "castings": castings,
        "defective": total["defect"],
        "good": total["ok"],
        "escapes": escapes,
        "overkills": overkills,
        "reviewed": castings - len(failed) - len(right),
        **_bounded(counts, confidence),
        "failed": [{key: r[key] for key in ("part", "label", "wrong", "images")} for r in failed],
    }


def _bounded(counts: Mapping[str, tuple[int, int]], confidence: float) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for name, (cases, total) in counts.items():
        low, high = exact_interval(cases, total, confidence) or (None, None)
        bound = upper_bound if _MATTERS[name] == "upper" else lower_bound
        figures |= {
            name: cases / total if total else None,
            f"{name}_low": low,
            f"{name}_high": high,
            f"{name}_{_MATTERS[name]}": bound(cases, total, confidence),
        }
    return figures


def _lower(cases: int, total: int, tail: float) -> float:
    return float(betaincinv(cases, total - cases + 1, tail)) if cases else 0.0


def _upper(cases: int, total: int, tail: float) -> float:
    return float(betainccinv(cases + 1, total - cases, tail)) if cases < total else 1.0
