"""Costs and a promise for tests, with figures that are easy to reckon with."""

from __future__ import annotations

from zdm_ml.params import CostParams, VerdictParams

COST = CostParams(
    currency="EUR", escape=100.0, overkill=10.0, review=2.0, prevalence=0.1, takt_seconds=1.0
)
PROMISE = VerdictParams(max_escape_rate=0.1, confidence=0.95)
