"""The leaderboard for people: a Markdown page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zdm_ml.evaluation.castings import AGGREGATION
from zdm_ml.evaluation.selection import Selection
from zdm_ml.evaluation.wording import (
    Row,
    assumptions,
    bounds_of_best,
    caveats,
    is_demo,
    outcome,
    promises,
)
from zdm_ml.params import CostParams, VerdictParams

Column = tuple[str, str, Callable[[Row], str]]
"""Heading, Markdown alignment, and what a row shows there."""


def markdown(
    rows: Sequence[Row], selection: Selection, cost: CostParams, promise: VerdictParams
) -> str:
    """Return the leaderboard as a Markdown page."""
    parts = [
        "# Leaderboard",
        outcome(selection),
        *caveats(rows),
        "## Test castings",
        _table(rows, _castings_columns(rows)),
        *bounds_of_best(rows),
        f"Aggregation: {AGGREGATION}. Bounds are exact, one-sided, and take the test castings for a"
        " random sample. The interval of the accuracy by image is a bootstrap over castings; one of"
        " no width only says that all were judged alike. `seen` is leaky: shipped test images of"
        " castings that trained the model. Worst case: the lowest balanced accuracy under changes"
        " of light, camera and pose.",
        "## Test images",
        _table(rows, _image_columns()),
        "Escapes and overkills are verdicts, what goes to review is neither; the rates tell two"
        " classes apart at each model's threshold, which castings outside the test set chose.",
        "## At the plant",
        _table(rows, _plant_columns(cost)),
        *promises(rows),
        assumptions(cost, promise),
        "## Beside the model of lowest cost",
        *_comparisons(selection, cost),
        "## What a decision takes",
        _table(rows, _decision_columns()),
        "p50 and p99: one image, preprocessing included, on the device that ran `latency`.",
        "![quality against cost](leaderboard.png)",
        "## Why",
        "\n".join(f"- **{row['model_name']}**: {row['reason']}" for row in rows),
    ]
    return "\n\n".join(parts) + "\n"


def _castings_columns(rows: Sequence[Row]) -> list[Column]:
    mark = " LEAKY" if any(row["leaky"] for row in rows) else ""
    return [
        *_names(),
        (f"defective escaped{mark}", "--:", lambda row: _of(row, "escapes", "defective")),
        ("at most", "--:", lambda row: _number(row["escape_rate_upper"], ".1%")),
        (f"good rejected{mark}", "--:", lambda row: _of(row, "overkills", "good")),
        ("at most", "--:", lambda row: _number(row["overkill_rate_upper"], ".1%")),
        (f"accuracy{mark}", "--:", lambda row: _number(row["accuracy"], ".2%")),
        ("interval", "--:", _interval),
        ("seen LEAKY", "--:", lambda row: _number(row["seen_accuracy"], ".2%")),
        ("worst case", ":--", _worst),
    ]


def _image_columns() -> list[Column]:
    return [
        *_names(),
        ("escapes", "--:", lambda row: _number(row["escapes"], "d")),
        ("overkills", "--:", lambda row: _number(row["overkills"], "d")),
        ("balanced", "--:", lambda row: _number(row["balanced_accuracy"], ".2%")),
        ("recall", "--:", lambda row: _number(row["recall"], ".2%")),
        ("AUC", "--:", lambda row: _number(row["roc_auc"], ".4f")),
        ("threshold", "--:", lambda row: _number(row["threshold"], ".3f")),
        ("start", ":--", lambda row: str(row["init"] or "-")),
    ]


def _plant_columns(cost: CostParams) -> list[Column]:
    return [
        *_names(),
        (f"{cost.currency} per 10,000 parts", "--:", lambda row: _number(row["cost"], ",.0f")),
        ("precision", "--:", lambda row: _number(row["plant_precision"], ".1%")),
        ("to review", "--:", lambda row: _number(row["review_load"], ".1%")),
        ("Brier", "--:", lambda row: _number(row["brier"], ".4f")),
        ("calibration error", "--:", lambda row: _number(row["calibration_error"], ".4f")),
    ]


def _comparisons(selection: Selection, cost: CostParams) -> list[str]:
    if not selection.comparisons:
        return ["No other model to compare with."]
    columns: list[Column] = [
        ("model", ":--", lambda row: str(row["model_name"])),
        ("wrong alone / right alone", "--:", _discordant),
        ("p (Holm)", "--:", lambda row: _number(row["p_holm"], ".3f")),
        ("escape rate higher by at most", "--:", _points("escape_excess_upper")),
        ("overkill rate higher by at most", "--:", _points("overkill_excess_upper")),
        (f"cost difference, {cost.currency}", "--:", _difference),
        ("castings missing", "--:", _missing),
        ("not worse", ":--", lambda row: "shown" if row["non_inferior"] else "not shown"),
    ]
    return [
        f"Beside {selection.reference}, on the same castings:",
        _table(selection.comparisons, columns),
        "p: exact McNemar test on castings judged wrong, held against the whole family (Holm)."
        " Bounds on rates are exact, one-sided; the cost difference per 10,000 parts comes with the"
        " ends of a bootstrap over castings. Missing: defective + good castings, judged alike by"
        " both, that would show the margins of `select` to be kept. Not shown is not the same as"
        " worse.",
    ]


def _discordant(row: Row) -> str:
    return f"{row['wrong_only']} / {row['wrong_only_reference']}"


def _points(key: str) -> Callable[[Row], str]:
    return lambda row: _number(row[key], ".1%")


def _difference(row: Row) -> str:
    return (
        f"{row['cost_difference']:,.0f} ({row['cost_difference_low']:,.0f} to"
        f" {row['cost_difference_high']:,.0f})"
    )


def _missing(row: Row) -> str:
    return f"{row['defective_missing']} + {row['good_missing']}"


def _decision_columns() -> list[Column]:
    return [
        *_names(),
        ("GFLOPs", "--:", lambda row: _number(row["flops"], ".2f", 1e9)),
        ("p50 ms", "--:", lambda row: _number(row["p50_ms"], ".1f")),
        ("p99 ms", "--:", lambda row: _number(row["p99_ms"], ".1f")),
        ("parameters", "--:", lambda row: _number(row["parameters"], ",d")),
        ("MB", "--:", lambda row: _number(row["size_bytes"], ".1f", 1e6)),
    ]


def _names() -> list[Column]:
    return [
        ("#", "--:", lambda row: _number(row["rank"], "d")),
        ("model", ":--", lambda row: f"{row['model_name']}{' (demo)' if is_demo(row) else ''}"),
    ]


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    lines = [
        [heading for heading, _, _ in columns],
        [alignment for _, alignment, _ in columns],
        *([show(row) for _, _, show in columns] for row in rows),
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _of(row: Row, errors: str, kind: str) -> str:
    if row[f"{errors}_castings"] is None:
        return "-"
    return f"{row[f'{errors}_castings']} of {row[f'{kind}_castings']}"


def _interval(row: Row) -> str:
    if row["accuracy_low"] is None:
        return "-"
    return f"{row['accuracy_low']:.1%} to {row['accuracy_high']:.1%}"


def _worst(row: Row) -> str:
    if row["worst_perturbation"] is None:
        return "-"
    return f"{row['worst_perturbation']} {row['worst_balanced_accuracy']:.1%}"


def _number(value: float | None, style: str, unit: float = 1) -> str:
    if value is None:
        return "-"
    return format(value if unit == 1 else value / unit, style)
