"""What decisions cost: expected money per part, at the plant's own rate of defects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zdm_ml.params import CostParams

PARTS = 10_000
"""Money is shown for this many parts: per part it would be cents."""


@dataclass(frozen=True)
class Rates:
    """Shares of the defective (`escaped`, `reviewed_defective`) and of the good castings."""

    escaped: float
    rejected: float
    reviewed_defective: float = 0.0
    reviewed_good: float = 0.0


def expected_cost(cost: CostParams, rates: Rates) -> float:
    """Return money per `PARTS` parts, of which `cost.prevalence` are defective.

    Rounded far below any difference that matters, so that equal costs compare as equal.
    """
    defective = cost.escape * rates.escaped + cost.review * rates.reviewed_defective
    good = cost.overkill * rates.rejected + cost.review * rates.reviewed_good
    per_part = cost.prevalence * defective + (1 - cost.prevalence) * good
    return round(PARTS * per_part, 6)


def overkill_weight(cost: CostParams, defective: int, good: int) -> float:
    """Return what rejecting one of `good` castings costs, in escapes of one of `defective`.

    A sample shows defects more often than the plant does: each class is weighed by its share
    there. A sample without one of the classes cannot be reweighed and counts as it is.
    """
    ratio = cost.overkill / cost.escape
    if not (defective and good):
        return ratio
    return ratio * (1 - cost.prevalence) / good * defective / cost.prevalence


def precision_at(cost: CostParams, rates: Rates) -> float | None:
    """Return the share of castings judged defective that are, at the plant's prevalence.

    None where nothing would be judged defective.
    """
    found = cost.prevalence * (1 - rates.escaped - rates.reviewed_defective)
    wrong = (1 - cost.prevalence) * rates.rejected
    return found / (found + wrong) if found + wrong > 0 else None


def review_load(cost: CostParams, rates: Rates) -> float:
    """Return the share of all parts that a person looks at, at the plant's prevalence."""
    return cost.prevalence * rates.reviewed_defective + (1 - cost.prevalence) * rates.reviewed_good


def at_the_plant(cost: CostParams, rates: Rates) -> dict[str, Any]:
    """Return what is said of a model at the plant: money, precision and load on reviewers."""
    return {
        "prevalence": cost.prevalence,
        "currency": cost.currency,
        "cost": expected_cost(cost, rates),
        "precision": precision_at(cost, rates),
        "review_load": review_load(cost, rates),
    }
