"""The leaderboard's picture: what errors cost against how long a decision takes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zdm_ml.evaluation.wording import is_demo

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WINNER, _OTHER, _LINE = "#0b6e4f", "#5b6b7a", "#9fb3c8"
# Where a name may stand beside its point, in points; the first free place is taken.
_PLACES = (
    (9, 0, "left", "center"),
    (-9, 0, "right", "center"),
    (0, 10, "center", "bottom"),
    (0, -10, "center", "top"),
    (8, 9, "left", "bottom"),
    (8, -9, "left", "top"),
    (-8, 9, "right", "bottom"),
    (-8, -9, "right", "top"),
    (9, 20, "left", "bottom"),
    (9, -20, "left", "top"),
)


def chart(rows: Sequence[Mapping[str, Any]], winner: str | None, currency: str) -> bytes:
    """Return a PNG of the ranked rows: expected cost over latency (log), down and left is better.

    A line steps along the models that no other beats in both. The same rows give the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ranked = [row for row in rows if row["rank"] is not None and row["p50_ms"]]
    figure = Figure(figsize=(9, 5.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _frame(axes, ranked, currency)
    if ranked:
        _front(axes, ranked)
        _points(axes, ranked, winner)
        figure.draw_without_rendering()
        _names(axes, ranked, winner)
    else:
        axes.text(0.5, 0.5, "no model was evaluated", ha="center", transform=axes.transAxes)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def pareto(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows that no other beats in latency and cost at once, by rising latency."""
    front: list[Mapping[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["p50_ms"], row["cost"])):
        if not front or row["cost"] < front[-1]["cost"]:
            front.append(row)
    return front


def _frame(axes: Axes, rows: Sequence[Mapping[str, Any]], currency: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    demo = sorted({row["profile"] for row in rows if is_demo(row)})
    mark = f"   (demo: profile {', '.join(demo)})" if demo else ""
    axes.set_title(f"Cost of errors against latency{mark}", loc="left", fontweight="bold", pad=12)
    axes.set_title("beside each name: escapes / overkills", loc="right", fontsize=9, color=_OTHER)
    axes.set_xlabel("median ms per image, log scale  (left is cheaper)")
    axes.set_ylabel(f"expected {currency} per 10,000 parts  (down is better)")
    axes.set_xscale("log")
    axes.grid(True, which="major", color="#e4e8ec")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    highest = max((row["cost"] for row in rows), default=1.0) or 1.0
    axes.set_ylim(-0.08 * highest, 1.12 * highest)
    if rows:
        values = [row["p50_ms"] for row in rows]
        axes.set_xlim(min(values) / 2, max(values) * 3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter("{x:,.0f}")


def _front(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    front = pareto(rows)
    if len(front) > 1:
        axes.plot(
            [row["p50_ms"] for row in front],
            [row["cost"] for row in front],
            drawstyle="steps-post",
            color=_LINE,
            linewidth=1.5,
            zorder=1,
        )


def _points(axes: Axes, rows: Sequence[Mapping[str, Any]], winner: str | None) -> None:
    for row in rows:
        best = row["model_name"] == winner
        axes.scatter(
            row["p50_ms"],
            row["cost"],
            marker="*" if best else "o",
            s=220 if best else 55,
            color=_WINNER if best else _OTHER,
            zorder=4 if best else 3,
        )


def _names(axes: Axes, rows: Sequence[Mapping[str, Any]], winner: str | None) -> None:
    from matplotlib.transforms import Bbox

    centres = [axes.transData.transform((row["p50_ms"], row["cost"])) for row in rows]
    taken = [Bbox.from_bounds(x - 9, y - 9, 18, 18) for x, y in centres]
    for row in rows:
        best = row["model_name"] == winner
        text = f"{row['model_name']}  {row['escapes']} / {row['overkills']}"
        for place in _PLACES:
            note = axes.annotate(
                text,
                (row["p50_ms"], row["cost"]),
                xytext=place[:2],
                textcoords="offset points",
                ha=place[2],
                va=place[3],
                fontsize=9,
                color=_WINNER if best else "#23303b",
                fontweight="bold" if best else "normal",
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
                zorder=2,
            )
            box = note.get_window_extent()
            if place is _PLACES[-1] or not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            note.remove()
