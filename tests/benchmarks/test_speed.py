"""Every figure of `make bench` can be computed, and the table keeps what it was told."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

KEYS = {"figure", "ours", "reference", "ratio", "goal", "met", "device"}
WITH_A_SERVER = "mlflow"


def measure(project: Path, report: Path, *figures: str) -> list[dict[str, Any]]:
    """Return the rows of figures at toy size, measured as a person would."""
    only = [argument for figure in figures for argument in ("--only", figure)]
    command = [sys.executable, "benchmarks/speed.py", "--quick", "--report", str(report), *only]
    done = subprocess.run(
        [*command, "--device", "cpu"], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows: list[dict[str, Any]] = json.loads(report.read_text())
    return rows


def check(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert KEYS <= set(row) <= KEYS | {"unit", "note"}
        assert min(row["ours"], row["reference"]) > 0 and math.isfinite(row["ratio"])
        assert (row["met"] is None) == (row["goal"] is None)


def line(table: ModuleType, figure: str, ours: float) -> Any:
    return table.compare(figure, [(ours, 2.0)], None, "cpu")


def test_every_figure_without_a_server_can_be_computed(
    project: Path, tmp_path: Path, load: Any
) -> None:
    figures = [name for name in load("speed").FIGURES if name != WITH_A_SERVER]

    rows = measure(project, tmp_path / "bench.json", *figures)

    check(rows)
    assert len({row["figure"] for row in rows}) == len(rows) >= len(figures)


@pytest.mark.integration
def test_the_cost_of_mlflow_can_be_computed(project: Path, tmp_path: Path) -> None:
    rows = measure(project, tmp_path / "bench.json", WITH_A_SERVER)

    check(rows)
    assert len(rows) == 1


def test_a_line_is_made_of_medians_and_meets_a_goal_or_stays_below_a_ceiling(load: Any) -> None:
    compare = load("table").compare
    pairs = [(1.0, 8.0), (2.0, 6.0), (4.0, 4.0)]

    times = compare("a", pairs, 3.0, "cpu")
    rates = compare("a", pairs, 0.5, "cpu", times=False)
    cost = compare("a", pairs, 0.3, "cpu", times=False, ceiling=True)

    assert (times.ours, times.reference, times.ratio, times.met) == (2.0, 6.0, 3.0, True)
    assert (round(rates.ratio, 3), rates.met, cost.met) == (0.333, False, False)


def test_who_is_measured_first_changes_from_repeat_to_repeat(load: Any) -> None:
    order: list[tuple[str, int]] = []

    pairs = load("table").in_turns(
        lambda repeat: order.append(("ours", repeat)) or 1.0,
        lambda repeat: order.append(("reference", repeat)) or 2.0,
        3,
    )

    assert pairs == [(1.0, 2.0)] * 3
    assert order == [
        ("ours", 1),
        ("reference", 1),
        ("reference", 2),
        ("ours", 2),
        ("ours", 3),
        ("reference", 3),
    ]


def test_a_part_replaces_its_rows_and_a_whole_run_drops_the_others(
    tmp_path: Path, load: Any
) -> None:
    table, report = load("table"), tmp_path / "bench.json"

    def kept() -> dict[str, float]:
        return {row["figure"]: row["ours"] for row in json.loads(report.read_text())}

    table.write(report, [line(table, "a", 1.0), line(table, "b", 1.0)])
    table.write(report, [line(table, "b", 3.0)])
    after_a_part = kept()
    table.write(report, [line(table, "b", 4.0)], complete=True)

    assert after_a_part == {"a": 1.0, "b": 3.0}
    assert kept() == {"b": 4.0}
