"""What is said of a model on one side of the split: by image, by casting, with bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from zdm_ml.data.manifest import Row
from zdm_ml.evaluation.bootstrap import cluster_bootstrap
from zdm_ml.evaluation.bounds import by_casting
from zdm_ml.evaluation.cost import Rates, at_the_plant, expected_cost
from zdm_ml.evaluation.metrics import Scores, Targets, metrics
from zdm_ml.evaluation.reliability import reliability_figures
from zdm_ml.evaluation.thresholds import cuts, error_curves, image_weights
from zdm_ml.evaluation.verdicts import Verdicts
from zdm_ml.params import CostParams, EvaluateParams

_BRIEF = ("images", "accuracy", "balanced_accuracy", "roc_auc", "escapes", "overkills")


def side_figures(
    scores: Scores,
    rows: Sequence[Row],
    threshold: float,
    verdicts: Verdicts,
    params: EvaluateParams,
    seed: int,
) -> dict[str, Any]:
    """Return the figures of `rows`, scored in their order: by image, `by_casting`, `intervals`.

    Those by image are of two classes, divided at `threshold`; castings are counted by verdict.
    """
    targets, parts = truth(rows)
    figures = metrics(scores, targets, threshold)
    wrong = ((scores >= threshold) != (targets == 1))[None, :]
    (intervals,) = cluster_bootstrap(
        wrong,
        targets,
        parts,
        resamples=params.resamples,
        confidence=params.confidence,
        seed=seed,
    )
    return {
        **figures,
        "by_casting": by_casting(scores, targets, parts, verdicts, params.confidence),
        "intervals": intervals,
    }


def truth(rows: Sequence[Row]) -> tuple[Targets, list[str]]:
    """Return the targets and the castings of rows."""
    return np.array([row.target for row in rows], dtype=np.int64), [row.part for row in rows]


def decision_figures(
    scores: Scores, rows: Sequence[Row], verdicts: Verdicts, cost: CostParams
) -> dict[str, Any]:
    """Return what the verdicts do to castings of `rows`, and what that means at the plant.

    `escapes`, `overkills` and `reviewed` count images.
    """
    targets, parts = truth(rows)
    rates = verdicts.rates(scores, targets, parts)
    passed, rejected = scores < verdicts.ok_below, scores >= verdicts.defect_from
    return {
        **asdict(verdicts),
        **asdict(rates),
        "escapes": int((passed & (targets == 1)).sum()),
        "overkills": int((rejected & (targets == 0)).sum()),
        "reviewed": int((~passed & ~rejected).sum()),
        **at_the_plant(cost, rates),
    }


def reliability_of(scores: Scores, rows: Sequence[Row], temperature: float) -> dict[str, Any]:
    """Return whether the scores of `rows` are probabilities, with and without `temperature`."""
    return reliability_figures(scores, *truth(rows), temperature)


def cost_curve(scores: Scores, rows: Sequence[Row], cost: CostParams) -> list[dict[str, float]]:
    """Return what each single threshold would cost at the plant, threshold rising."""
    targets, parts = truth(rows)
    levels, place = np.unique(scores, return_inverse=True)
    escapes, overkills = error_curves(place, targets, image_weights(targets, parts))
    points = []
    for value, missed, rejected in zip(cuts(levels)[0], escapes, overkills, strict=True):
        rates = Rates(missed / (escapes[-1] or 1.0), rejected / (overkills[0] or 1.0))
        points.append(
            {
                "threshold": min(value, 1.0),
                "escape_rate": rates.escaped,
                "overkill_rate": rates.rejected,
                "cost": expected_cost(cost, rates),
            }
        )
    return points


def seen_figures(scores: Scores, rows: Sequence[Row], threshold: float) -> dict[str, Any] | None:
    """Return brief figures of images whose castings were trained on; None without such images."""
    if not rows:
        return None
    targets, _ = truth(rows)
    figures = brief(metrics(scores, targets, threshold))
    return {**figures, "castings": len({row.part for row in rows}), "leaky": True}


def brief(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the few figures that stand beside the ones of the test side."""
    return {key: figures[key] for key in _BRIEF}
