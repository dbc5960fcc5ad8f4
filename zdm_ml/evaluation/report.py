"""The leaderboard: rows for machines, Markdown for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zdm_ml.evaluation.selection import Selection

COLUMNS = (
    "rank",
    "model_name",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "roc_auc",
    "escapes",
    "overkills",
    "cost",
    "threshold",
    "flops",
    "p50_ms",
    "p99_ms",
    "parameters",
    "size_bytes",
    "init",
    "profile",
    "reason",
)

LEAK_WARNING = (
    "Every figure is on the test images as they were shipped. The public casting images are split"
    " so that nearly every test image shows a casting that was also trained on: these figures are"
    " too good, and say little about castings that no model has seen."
)


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


def markdown(
    rows: Sequence[Mapping[str, Any]], selection: Selection, overkill_weight: float
) -> str:
    """Return the leaderboard as a Markdown page."""
    parts = [
        "# Leaderboard",
        _verdict(selection),
        *_warnings(rows),
        _table(rows),
        f"Cost = escapes + {overkill_weight:g} x overkills at each model's own threshold, which"
        " comes from the calibration images. Ties go to fewer FLOPs. p50 and p99: one image,"
        " preprocessing included, on the device that ran `latency`.",
        "![quality against cost](leaderboard.png)",
        "## Why",
        "\n".join(f"- **{row['model_name']}**: {row['reason']}" for row in rows),
    ]
    return "\n\n".join(parts) + "\n"


def is_demo(row: Mapping[str, Any]) -> bool:
    """Return whether a row's profile is one whose model never replaces a full one."""
    return row["profile"] not in ("full", None)


def _verdict(selection: Selection) -> str:
    return f"**Winner: {selection.reason}.**" if selection.eligible else f"**{selection.reason}.**"


def _warnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"> {LEAK_WARNING}"]
    demo = sorted({row["profile"] for row in rows if is_demo(row)})
    if demo:
        lines.append(
            f"> Demo: trained with profile {', '.join(demo)}. Such a model shows that everything"
            " works; it never replaces one of profile full."
        )
    scratch = [row["model_name"] for row in rows if row["init"] == "scratch"]
    if scratch:
        lines.append(
            f"> Trained from scratch, without pretrained weights: {', '.join(scratch)}. A net that"
            " has official weights is expected to do better when it starts from them."
        )
    return lines


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = (
        "#", "model", "escapes", "overkills", "cost", "accuracy", "balanced", "recall", "AUC",
        "threshold", "GFLOPs", "p50 ms", "p99 ms", "parameters", "MB", "start",
    )  # fmt: skip
    lines = [
        "| " + " | ".join(heads) + " |",
        "| --: | :-- |" + " --: |" * (len(heads) - 3) + " :-- |",
    ]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    name = f"{row['model_name']} (demo)" if is_demo(row) else str(row["model_name"])
    return (
        _number(row["rank"], "d"),
        name,
        _number(row["escapes"], "d"),
        _number(row["overkills"], "d"),
        _number(row["cost"], ".4g"),
        _number(row["accuracy"], ".2%"),
        _number(row["balanced_accuracy"], ".2%"),
        _number(row["recall"], ".2%"),
        _number(row["roc_auc"], ".4f"),
        _number(row["threshold"], ".3f"),
        _number(row["flops"], ".2f", 1e9),
        _number(row["p50_ms"], ".1f"),
        _number(row["p99_ms"], ".1f"),
        _number(row["parameters"], ",d"),
        _number(row["size_bytes"], ".1f", 1e6),
        str(row["init"] or "-"),
    )


def _number(value: float | None, style: str, unit: float = 1) -> str:
    if value is None:
        return "-"
    return format(value if unit == 1 else value / unit, style)
