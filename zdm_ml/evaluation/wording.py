"""What is said of a leaderboard in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zdm_ml.evaluation.bounds import castings_needed
from zdm_ml.evaluation.selection import Selection
from zdm_ml.params import CostParams, VerdictParams

Row = Mapping[str, Any]


def is_demo(row: Row) -> bool:
    """Return whether a row's profile is one whose model never replaces a full one."""
    return row["profile"] not in ("full", None)


def leak_warning(rows: Sequence[Row]) -> str | None:
    """Return what must be said of figures that leak; None when none of the rows does."""
    leaky = [row for row in rows if row["leaky"]]
    if not leaky:
        return None
    protocol = leaky[0]["protocol"]
    cause = f"castings stand on more than one side of the split (protocol {protocol})"
    if protocol == "shipped":
        cause = "the shipped test images show castings that were also trained on"
    return (
        f"LEAKY: {cause}. These figures are too good, say little about castings that no model has"
        " seen, and never let a model of profile full be promoted. `split.protocol: grouped` in"
        " params.yaml gives honest ones."
    )


def casting_bounds(row: Row) -> str:
    """Return in words what a row's test castings prove of escapes and overkills."""
    return "; ".join(
        f"{row[f'{errors}_castings']} of {row[f'{kind}_castings']} {kind} castings {verb}"
        + _at_most(row[f"{rate}_upper"], row["confidence"])
        for errors, kind, verb, rate in (
            ("escapes", "defective", "escaped", "escape_rate"),
            ("overkills", "good", "rejected", "overkill_rate"),
        )
    )


def _at_most(bound: float | None, confidence: float) -> str:
    return "" if bound is None else f", at most {bound:.1%} at {100 * confidence:g} %"


def outcome(selection: Selection) -> str:
    """Return who won and why, or why nobody did, in bold."""
    return f"**Winner: {selection.reason}.**" if selection.eligible else f"**{selection.reason}.**"


def caveats(rows: Sequence[Row]) -> list[str]:
    """Return what must be known before the figures are read: leaks, demos, nets from scratch."""
    leak = leak_warning(rows)
    lines = [f"> **{leak}**"] if leak else []
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


def bounds_of_best(rows: Sequence[Row]) -> list[str]:
    """Return what the test castings prove of the first in rank; empty if nobody is ranked."""
    best = [row for row in rows if row["rank"] == 1 and row["castings"] is not None]
    return [f"**{row['model_name']}**: {casting_bounds(row)}." for row in best]


def promises(rows: Sequence[Row]) -> list[str]:
    """Say what is promised of the verdict ok, once for all models of which it is the same."""
    models: dict[str, list[str]] = {}
    for row in rows:
        if row["guarantee"]:
            alone = "" if row["ok_below"] < row["defect_from"] else "; the cost threshold decides"
            models.setdefault(f"{row['guarantee']}{alone}.", []).append(row["model_name"])
    return [f"**{', '.join(names)}**: {promise}" for promise, names in models.items()]


def assumptions(cost: CostParams, promise: VerdictParams) -> str:
    """Return what the costs assume, and how many castings the promise itself would take."""
    needed = castings_needed(promise.max_escape_rate, promise.confidence)
    return (
        f"Assumed: {cost.prevalence:.2%} of the parts are defective; an escape costs"
        f" {cost.escape:,g} {cost.currency}, an overkill {cost.overkill:,g}, a review"
        f" {cost.review:,g} (`cost` in params.yaml). Each casting weighs one. Precision: the share"
        " of rejected parts that are defective. Brier score and expected calibration error at the"
        " temperature that the calibration castings chose, both classes weighing half. To claim"
        f" that at most {promise.max_escape_rate:.2%} of the defects escape, at"
        f" {100 * promise.confidence:g} %, {needed} defective castings would have to pass without a"
        " miss."
    )
