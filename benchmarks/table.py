"""The table of figures: both sides measured in turns, medians, one row each, printed and kept."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table

from zdm_ml.files import write_text

Measured = TypeVar("Measured")
Clock = Callable[[], float]
Pairs = Sequence[tuple[float, float]]
"""(ours, reference) of each repeat."""

console = Console(width=150, highlight=False)


@dataclass(frozen=True)
class Line:
    """One figure: `ratio` meets a goal by reaching it, or by staying below where `note` says so."""

    figure: str
    ours: float
    reference: float
    ratio: float
    goal: float | None
    met: bool | None
    device: str
    unit: str = ""
    note: str = ""


def compare(
    figure: str,
    pairs: Pairs,
    goal: float | None,
    device: str,
    *,
    unit: str = "s",
    times: bool = True,
    ceiling: bool = False,
    note: str = "",
) -> Line:
    """Return the medians of (ours, reference) and the median of their ratios.

    Of `times` the ratio is reference / ours, else ours / reference; it has to be at least `goal`,
    under a `ceiling` at most.
    """
    ours, reference = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(b / a if times else a / b for a, b in pairs)
    met = None if goal is None else ratio <= goal if ceiling else ratio >= goal
    return Line(figure, ours, reference, ratio, goal, met, device, unit, note)


def in_turns(
    ours: Callable[[int], Measured], reference: Callable[[int], Measured], repeats: int
) -> list[tuple[Measured, Measured]]:
    """Call both with 1, 2, ... in turns; who goes first changes, so that a drift hits both."""
    pairs = []
    for repeat in range(1, repeats + 1):
        if repeat % 2:
            first = ours(repeat)
            pairs.append((first, reference(repeat)))
        else:
            second = reference(repeat)
            pairs.append((ours(repeat), second))
    return pairs


def seconds(work: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Return how long `work` takes, with what it left to a GPU."""
    finish()
    started = clock()
    work()
    finish()
    return clock() - started


def finish() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def spread(values: Sequence[float]) -> str:
    """Return the smallest and the largest value in words."""
    return f"{min(values):.0f} to {max(values):.0f}"


def write(report: Path, lines: Sequence[Line], *, complete: bool = False) -> None:
    """Put lines into the JSON list at `report`, in the place of those of the same figure.

    Other rows stay, so that a figure can be measured again alone; a run that is `complete` drops
    them. Optional keys are left out where they are empty.
    """
    names = {line.figure for line in lines}
    old = json.loads(report.read_text()) if report.is_file() and not complete else []
    kept = [row for row in old if row["figure"] not in names]
    write_text(report, json.dumps([*kept, *map(_row, lines)], indent=2, allow_nan=False) + "\n")


def show(lines: Sequence[Line], title: str) -> None:
    """Print the table, and what each line says beside its figures."""
    table = Table("figure", "unit", title=title)
    for head in ("ours", "reference", "ratio", "goal", "met"):
        table.add_column(head, justify="right")
    table.add_column("note")
    for line in lines:
        met = {None: "-", True: "yes", False: "no"}[line.met]
        goal = "-" if line.goal is None else f"{line.goal:g}"
        figures = (f"{line.ours:.4g}", f"{line.reference:.4g}", f"{line.ratio:.3g}")
        table.add_row(line.figure, line.unit, *figures, goal, met, line.note)
    console.print(table)
    for device in sorted({line.device for line in lines}):
        console.print(device, markup=False)


def _row(line: Line) -> dict[str, Any]:
    return {
        key: value for key, value in asdict(line).items() if key not in ("unit", "note") or value
    }
