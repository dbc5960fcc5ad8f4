"""Rows of the leaderboard, from what `evaluate` wrote."""

from __future__ import annotations

from typing import Any

from zdm_ml.evaluation.leaderboard import COLUMNS, flat_figures, leaderboard
from zdm_ml.evaluation.selection import Selection

SELECTION = Selection(
    winner="luna",
    eligible=True,
    reason="",
    rows=[
        {"rank": 1, "model_name": "luna", "reason": "best"},
        {"rank": None, "model_name": "vit_b_16", "reason": "not ranked: killed"},
    ],
    reference="luna",
    policy="lowest_cost",
    comparisons=[],
)


def figures(seen: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "accuracy": 0.9,
        "escapes": 5,
        "overkills": 0,
        "leaky": False,
        "protocol": "grouped",
        "confusion": "not a column",
        "seen": seen,
        "by_casting": {
            "castings": 24,
            "defective": 20,
            "good": 4,
            "escapes": 0,
            "overkills": 1,
            "accuracy": 0.95,
            "escape_rate_upper": 0.139,
            "overkill_rate_upper": 0.751,
            "confidence": 0.95,
        },
        "intervals": {"per_image": {"accuracy_low": 0.8, "accuracy_high": 0.97}},
        "robustness": {"worst": {"name": "blur", "balanced_accuracy": 0.6}},
        "decision": {
            "escapes": 2,
            "overkills": 3,
            "cost": 1234.5,
            "precision": 0.8,
            "review_load": 0.02,
            "ok_below": 0.4,
            "defect_from": 0.6,
        },
        "guarantee": "no guarantee: 3 more defective castings needed",
        "reliability": {"tempered": {"brier": 0.05, "calibration_error": 0.02}},
    }


def test_errors_are_those_of_the_verdicts_in_use() -> None:
    rows = leaderboard(SELECTION, {"luna": flat_figures(figures(None))})

    assert (rows[0]["escapes"], rows[0]["overkills"]) == (2, 3)


def test_rows_have_the_same_keys_and_failed_models_have_no_figures() -> None:
    rows = leaderboard(SELECTION, {"luna": flat_figures(figures(None))})

    assert [tuple(row) for row in rows] == [COLUMNS] * 2
    assert rows[1]["accuracy"] is None and rows[1]["reason"] == "not ranked: killed"


def test_honest_and_seen_figures_stand_side_by_side() -> None:
    flat = flat_figures(figures({"accuracy": 0.99, "images": 50, "leaky": True}))

    (row, _) = leaderboard(SELECTION, {"luna": flat})

    assert (row["accuracy"], row["accuracy_low"], row["accuracy_high"]) == (0.9, 0.8, 0.97)
    assert (row["seen_accuracy"], row["seen_images"], row["leaky"]) == (0.99, 50, False)


def test_castings_and_the_worst_perturbation_have_columns() -> None:
    (row, _) = leaderboard(SELECTION, {"luna": flat_figures(figures(None))})

    assert (row["castings"], row["escapes_castings"], row["overkills_castings"]) == (24, 0, 1)
    assert (row["escape_rate_upper"], row["seen_accuracy"]) == (0.139, None)
    assert (row["worst_perturbation"], row["worst_balanced_accuracy"]) == ("blur", 0.6)


def test_money_precision_and_calibration_have_columns() -> None:
    (row, _) = leaderboard(SELECTION, {"luna": flat_figures(figures(None))})

    assert (row["cost"], row["plant_precision"], row["review_load"]) == (1234.5, 0.8, 0.02)
    assert (row["ok_below"], row["defect_from"]) == (0.4, 0.6)
    assert (row["brier"], row["calibration_error"]) == (0.05, 0.02)
