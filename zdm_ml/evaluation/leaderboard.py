"""The leaderboard's rows: what is known of each model, flat, best first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zdm_ml.evaluation.selection import Selection

COLUMNS = (
    "rank",
    "model_name",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "images",
    "escapes",
    "overkills",
    "cost",
    "plant_precision",
    "review_load",
    "ok_below",
    "defect_from",
    "guarantee",
    "brier",
    "calibration_error",
    "castings",
    "defective_castings",
    "good_castings",
    "escapes_castings",
    "overkills_castings",
    "escape_rate_upper",
    "overkill_rate_upper",
    "confidence",
    "seen_accuracy",
    "seen_images",
    "worst_perturbation",
    "worst_balanced_accuracy",
    "threshold",
    "flops",
    "p50_ms",
    "p99_ms",
    "parameters",
    "size_bytes",
    "init",
    "profile",
    "protocol",
    "leaky",
    "reason",
)


def flat_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics.json with what the leaderboard shows of its nested parts beside it.

    Errors are counted by verdict, at the thresholds in use. `accuracy_low` and `accuracy_high`
    bound the accuracy by image (bootstrap over castings), the `*_upper` are exact bounds by
    casting. `seen_accuracy` is leaky: shipped test images of castings that trained the model.
    `cost` is expected money per 10,000 parts, `plant_precision` and `review_load` are at the
    plant's prevalence, `brier` and `calibration_error` at the temperature.
    """
    castings, images = metrics["by_casting"], metrics["intervals"]["per_image"]
    seen, worst = metrics["seen"] or {}, metrics["robustness"]["worst"]
    decision, tempered = metrics["decision"], metrics["reliability"]["tempered"]
    return {
        **metrics,
        "accuracy_low": images["accuracy_low"],
        "accuracy_high": images["accuracy_high"],
        "escapes": decision["escapes"],
        "overkills": decision["overkills"],
        "cost": decision["cost"],
        "plant_precision": decision["precision"],
        "review_load": decision["review_load"],
        "ok_below": decision["ok_below"],
        "defect_from": decision["defect_from"],
        "brier": tempered["brier"],
        "calibration_error": tempered["calibration_error"],
        "castings": castings["castings"],
        "defective_castings": castings["defective"],
        "good_castings": castings["good"],
        "escapes_castings": castings["escapes"],
        "overkills_castings": castings["overkills"],
        "escape_rate_upper": castings["escape_rate_upper"],
        "overkill_rate_upper": castings["overkill_rate_upper"],
        "confidence": castings["confidence"],
        "seen_accuracy": seen.get("accuracy"),
        "seen_images": seen.get("images"),
        "worst_perturbation": worst["name"],
        "worst_balanced_accuracy": worst["balanced_accuracy"],
    }


def leaderboard(
    selection: Selection, figures: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return one row per model, best first, failed ones last with None where there is no figure.

    `figures` holds, by model, whatever is known of it (metrics, latency, init, profile, cost);
    only `COLUMNS` are taken.
    """
    return [
        {column: {**figures.get(row["model_name"], {}), **row}.get(column) for column in COLUMNS}
        for row in selection.rows
    ]
