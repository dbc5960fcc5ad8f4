"""The leaderboard as a person reads it at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

_HEADS = ("#", "model", "escapes", "overkills", "cost", "accuracy", "AUC", "GFLOPs", "ms", "start")


def board_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the ranked models, best first; `ms` is the median time of one image."""
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for head in _HEADS:
        table.add_column(
            head, justify="left" if head in ("model", "start") else "right", no_wrap=True
        )
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Mapping[str, Any]) -> Iterator[str]:
    demo = " (demo)" if row["profile"] not in ("full", None) else ""
    gflops = None if row["flops"] is None else row["flops"] / 1e9
    yield _shown(row["rank"], "d")
    yield f"{row['model_name']}{demo}"
    yield _shown(row["escapes"], "d")
    yield _shown(row["overkills"], "d")
    yield _shown(row["cost"], ",.0f")
    yield _shown(row["accuracy"], ".2%")
    yield _shown(row["roc_auc"], ".4f")
    yield _shown(gflops, ".2f")
    yield _shown(row["p50_ms"], ".1f")
    yield str(row["init"] or "-")


def _shown(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)
