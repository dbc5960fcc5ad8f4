"""Candidates of a selection, and comparisons between them, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zdm_ml.evaluation.comparison import Comparison
from zdm_ml.evaluation.lead import Candidate, Policy

POLICY = Policy(
    name="cheapest_not_worse",
    cost_margin=100.0,
    currency="EUR",
    max_milliseconds=1000.0,
    max_bytes=None,
    min_models=1,
)


def candidate(name: str, cost: float = 0.0, p50_ms: float = 10.0, **options: Any) -> Candidate:
    """Return a candidate of a hundred images of twelve castings."""
    values: dict[str, Any] = {
        "model_name": name,
        "escapes": 1,
        "overkills": 2,
        "images": 100,
        "cost": cost,
        "flops": 10**9,
        "p50_ms": p50_ms,
        "p99_ms": 2 * p50_ms,
        "size_bytes": 10**7,
        "accuracy": 0.9,
        "balanced_accuracy": 0.9,
        "threshold": 0.5,
        "init": "official",
        "profile": "full",
        "castings": 12,
        "escapes_castings": 1,
        "overkills_castings": 0,
        "leaky": False,
    }
    return Candidate(**{**values, **options})


def comparisons(
    models: Sequence[Candidate], shown: Sequence[str] = (), **options: Any
) -> Callable[[str], list[Comparison]]:
    """Return a way to compare: the models in `shown` are not worse than any reference."""

    def compare(reference: str) -> list[Comparison]:
        return [
            comparison(model.model_name, reference, model.model_name in shown, **options)
            for model in models
            if model.model_name != reference
        ]

    return compare


def comparison(name: str, reference: str, shown: bool, **options: Any) -> Comparison:
    """Return a comparison that is undecidable unless it is `shown`."""
    values: dict[str, Any] = {
        "model_name": name,
        "reference": reference,
        "escapes_only": 0,
        "escapes_only_reference": 0,
        "wrong_only": 1,
        "wrong_only_reference": 2,
        "p_value": 1.0,
        "p_holm": 1.0,
        "escape_excess_upper": 0.02,
        "overkill_excess_upper": 0.03,
        "cost_difference": 10.0,
        "cost_difference_low": -20.0,
        "cost_difference_high": 40.0,
        "defective_missing": 0 if shown else 43,
        "good_missing": 0 if shown else 27,
        "non_inferior": shown,
    }
    return Comparison(**{**values, **options})
