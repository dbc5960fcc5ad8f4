"""The stage `evaluate`: one model's scores, threshold, figures and curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zdm_ml.data.manifest import Row
from zdm_ml.evaluation.metrics import (
    Scores,
    confusion_rows,
    metrics,
    pr_points,
    roc_points,
    side,
)
from zdm_ml.evaluation.scoring import score_rows
from zdm_ml.evaluation.thresholds import choose_threshold, decision
from zdm_ml.files import write_json
from zdm_ml.models.net import load_net
from zdm_ml.pipeline.stages import Context, write_csv
from zdm_ml.training.device import choose_device


def evaluate(
    context: Context, name: str, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Write scores, decision, metrics and curves of one model; return its figures on test.

    The threshold comes from the calibration images: the test images only measure it.
    """
    params, out = context.params, context.paths["evaluation"] / name
    loaded = load_net(context.paths["models"] / name, choose_device(params.train.device))
    rows = context.rows("val", "calibration", "test")
    scores = score_rows(
        loaded,
        rows,
        context.paths["castings"],
        batch_size=params.evaluate.batch_size,
        max_pixels=params.audit.max_pixels,
        on_step=progress,
    )
    threshold = choose_threshold(*side(scores, rows, "calibration"), params.cost.overkill_weight)
    at_test = side(scores, rows, "test")
    figures = {
        **metrics(*at_test, threshold.value),
        "init": loaded.spec.init,
        "profile": loaded.spec.profile,
        "model_digest": loaded.spec.digest,
    }
    figures["val"] = _brief(metrics(*side(scores, rows, "val"), threshold.value))
    _write_scores(out / "scores.csv", rows, scores)
    write_json(out / "decision.json", decision(threshold))
    write_json(out / "metrics.json", figures)
    _write_points(out / "roc.csv", ("fpr", "tpr", "threshold"), roc_points(*at_test))
    _write_points(out / "pr.csv", ("recall", "precision", "threshold"), pr_points(*at_test))
    _write_points(
        out / "confusion.csv", ("actual", "predicted"), confusion_rows(*at_test, threshold.value)
    )
    return figures


def _brief(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {key: figures[key] for key in ("images", "accuracy", "roc_auc", "escapes", "overkills")}


def _write_scores(path: Path, rows: Sequence[Row], scores: Scores) -> None:
    columns = ("path", "split", "label", "part", "score")
    records = (
        (row.path, row.split, row.label, row.part, repr(float(score)))
        for row, score in zip(rows, scores, strict=True)
    )
    write_csv(path, columns, records)


def _write_points(path: Path, columns: Sequence[str], points: Sequence[Mapping[str, Any]]) -> None:
    write_csv(path, columns, ([point[column] for column in columns] for point in points))
