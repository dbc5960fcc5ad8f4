"""What is said of a model on one side of the split: by image, by casting, with bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zdm_ml.data.manifest import Row
from zdm_ml.evaluation.bootstrap import cluster_bootstrap
from zdm_ml.evaluation.bounds import by_casting
from zdm_ml.evaluation.metrics import Scores, metrics
from zdm_ml.params import EvaluateParams

_BRIEF = ("images", "accuracy", "balanced_accuracy", "roc_auc", "escapes", "overkills")


def side_figures(
    scores: Scores, rows: Sequence[Row], threshold: float, params: EvaluateParams, seed: int
) -> dict[str, Any]:
    """Return the figures of `rows`, scored in their order: by image, `by_casting`, `intervals`."""
    targets = np.array([row.target for row in rows], dtype=np.int64)
    parts = [row.part for row in rows]
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
        "by_casting": by_casting(scores, targets, parts, threshold, params.confidence),
        "intervals": intervals,
    }


def seen_figures(scores: Scores, rows: Sequence[Row], threshold: float) -> dict[str, Any] | None:
    """Return brief figures of images whose castings were trained on; None without such images."""
    if not rows:
        return None
    targets = np.array([row.target for row in rows], dtype=np.int64)
    figures = brief(metrics(scores, targets, threshold))
    return {**figures, "castings": len({row.part for row in rows}), "leaky": True}


def brief(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the few figures that stand beside the ones of the test side."""
    return {key: figures[key] for key in _BRIEF}
