"""Figures of merit of scores against targets; `defect` is the positive class, index 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zdm_ml.data.manifest import CLASSES, Row
from zdm_ml.errors import DataError

Scores = npt.NDArray[np.float64]
Targets = npt.NDArray[np.int64]

ABOVE_EVERY_SCORE = math.nextafter(1.0, 2.0)
"""The threshold at which nothing is judged a defect, however sure the net is."""


def metrics(scores: Scores, targets: Targets, threshold: float) -> dict[str, Any]:
    """Return the figures at one threshold: a score at or above it is judged a defect.

    `scores` are P(defect) [N] in [0, 1], `targets` [N] are 0 or 1. Escapes are defects judged ok,
    overkills good parts judged defect; `confusion` is [[tn, fp], [fn, tp]]. A rate without any
    case (precision where nothing was judged a defect) is 0, as in scikit-learn; `roc_auc` is None
    unless both classes are there; balanced accuracy is the mean over the classes that are there.
    """
    check(scores, targets)
    tn, fp, fn, tp = confusion(scores, targets, threshold)
    recalls = [_ratio(hit, hit + miss) for hit, miss in ((tn, fp), (tp, fn)) if hit + miss]
    return {
        "images": len(targets),
        "defects": tp + fn,
        "good": tn + fp,
        "threshold": threshold,
        "escapes": fn,
        "overkills": fp,
        "accuracy": _ratio(tn + tp, len(targets)),
        "balanced_accuracy": sum(recalls) / len(recalls),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "roc_auc": roc_auc(scores, targets),
        "confusion": [[tn, fp], [fn, tp]],
    }


def confusion(scores: Scores, targets: Targets, threshold: float) -> tuple[int, int, int, int]:
    """Return the counts (tn, fp, fn, tp)."""
    judged, defect = scores >= threshold, targets == 1
    tp, fp = int((judged & defect).sum()), int((judged & ~defect).sum())
    fn, tn = int((~judged & defect).sum()), int((~judged & ~defect).sum())
    return tn, fp, fn, tp


def weighted_cost(escapes: float, overkills: float, overkill_weight: float) -> float:
    """Return what the errors cost: an escape 1, an overkill `overkill_weight`.

    Rounded far below any difference that matters, so that equal costs compare as equal.
    """
    return round(escapes + overkill_weight * overkills, 9)


def roc_auc(scores: Scores, targets: Targets) -> float | None:
    """Return the area under the ROC curve, or None where one class is missing."""
    if len(np.unique(targets)) < 2:
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(targets, scores))


def roc_points(scores: Scores, targets: Targets) -> list[dict[str, float]]:
    """Return the corners of the ROC curve, threshold falling; none where one class is missing."""
    check(scores, targets)
    if len(np.unique(targets)) < 2:
        return []
    from sklearn.metrics import roc_curve

    rates = zip(*roc_curve(targets, scores), strict=True)
    return [
        {"fpr": float(fpr), "tpr": float(tpr), "threshold": min(float(at), ABOVE_EVERY_SCORE)}
        for fpr, tpr, at in rates
    ]


def pr_points(scores: Scores, targets: Targets) -> list[dict[str, float]]:
    """Return precision and recall at each threshold, rising; none where no defect is there."""
    check(scores, targets)
    if not (targets == 1).any():
        return []
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(targets, scores, drop_intermediate=True)
    # The curve's last point, precision 1 at recall 0, belongs to judging nothing a defect.
    at = [*thresholds, ABOVE_EVERY_SCORE]
    return [
        {"recall": float(r), "precision": float(p), "threshold": float(t)}
        for r, p, t in zip(recall, precision, at, strict=True)
    ]


def confusion_rows(scores: Scores, targets: Targets, threshold: float) -> list[dict[str, str]]:
    """Return one row per image, `actual` and `predicted` class, for DVC's confusion plot."""
    return [
        {"actual": CLASSES[int(target)], "predicted": CLASSES[int(score >= threshold)]}
        for score, target in zip(scores, targets, strict=True)
    ]


def side(scores: Scores, rows: Sequence[Row], split: str) -> tuple[Scores, Targets]:
    """Return the scores and targets of the rows on one side of the split."""
    chosen = [place for place, row in enumerate(rows) if row.split == split]
    targets = np.array([rows[place].target for place in chosen], dtype=np.int64)
    return scores[chosen], targets


def check(scores: Scores, targets: Targets) -> None:
    """Raise `DataError` unless there is one finite score per target, and at least one."""
    if len(scores) != len(targets) or len(scores) == 0:
        raise DataError(
            f"{len(scores)} scores for {len(targets)} targets",
            hint="run the evaluate stage again; the split must hold images",
        )
    if not np.isfinite(scores).all():
        raise DataError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite",
            hint="train the model again with a smaller learning rate",
        )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
