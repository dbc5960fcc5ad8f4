"""The packet's curves as one picture: ROC, reliability, cost by threshold, cost against latency."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zdm_ml.evaluation.chart import chart
from zdm_ml.evaluation.figures import cost_curve, truth
from zdm_ml.evaluation.metrics import roc_points
from zdm_ml.params import CostParams

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from zdm_ml.registry.evidence import Exhibit

_MINE, _ITS, _SOFT = "#0b6e4f", "#b26a00", "#9fb3c8"


def curves(exhibit: Exhibit, figures: Mapping[str, Any], cost: CostParams) -> str:
    """Return ROC, reliability and cost curves of both models as a PNG data URI."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    roc, reliable, money = figure.subplots(1, 3)
    sides = [("challenger", exhibit.challenger, exhibit.scores, _MINE)]
    if exhibit.champion is not None and exhibit.champion_scores is not None:
        sides.append(("champion", exhibit.champion, exhibit.champion_scores, _ITS))
    for name, package, scores, colour in sides:
        points = roc_points(scores, truth(exhibit.rows)[0])
        _line(roc, [(p["fpr"], p["tpr"]) for p in points], name, colour)
        bins = figures[name]["reliability"]["bins"]
        _line(reliable, [(b["predicted"], b["defective"]) for b in bins], name, colour, "o")
        costs = cost_curve(scores, exhibit.rows, cost)
        _line(money, [(c["threshold"], c["cost"]) for c in costs], name, colour)
        money.axvline(package.ruling.threshold, color=colour, lw=0.8, ls=":")
    for axes in (roc, reliable):
        axes.plot([0, 1], [0, 1], color=_SOFT, lw=0.8, ls="--")
    roc.set(title="ROC, by image", xlabel="good rejected", ylabel="defects found")
    reliable.set(title="Reliability", xlabel="P(defect), tempered", ylabel="share of defects")
    money.set(
        title="Cost by threshold (dotted: in use)",
        xlabel="threshold",
        ylabel=f"{cost.currency} per 10,000 parts",
    )
    money.yaxis.set_major_formatter("{x:,.0f}")
    for axes in (roc, reliable, money):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return _data_uri(buffer.getvalue())


def pareto_picture(
    leaderboard: Sequence[Mapping[str, Any]], winner: str, currency: str
) -> str | None:
    """Return the run's models, cost of errors against latency; None without a leaderboard."""
    return _data_uri(chart(leaderboard, winner, currency)) if leaderboard else None


def _line(
    axes: Axes, points: Sequence[tuple[float, float]], name: str, colour: str, mark: str = ""
) -> None:
    axes.plot(*zip(*points, strict=True), color=colour, label=name, marker=mark, ms=4)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
