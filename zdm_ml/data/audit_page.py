"""The audit as one page for people: verdict, findings, pictures; no file beside it, no network."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from zdm_ml.data import audit_pictures as pictures
from zdm_ml.data.audit import Audit
from zdm_ml.files import write_text

TEMPLATE = "audit.html.j2"
BINS = 40
CHART_WIDTH, CHART_HEIGHT = 720, 160

VERDICTS = {
    "red": "Do not trust a result on this data before the red findings are dealt with.",
    "amber": "Usable with care: read the amber findings before quoting a result.",
    "green": "Nothing found that would spoil a result.",
}


@dataclass(frozen=True)
class Bar:
    """One bar of a chart, in pixels of the chart."""

    x: float
    y: float
    width: float
    height: float
    count: int


@dataclass(frozen=True)
class Histogram:
    """How similar each image is to the most similar other one; `threshold_x` in pixels."""

    bars: list[Bar]
    low: float
    high: float
    threshold: float | None
    threshold_x: float | None
    width: int = CHART_WIDTH
    height: int = CHART_HEIGHT


def write_page(path: Path, audit: Audit) -> None:
    """Write the page atomically."""
    write_text(path, render_page(audit))


def render_page(audit: Audit) -> str:
    """Return the page as HTML, the same text for the same audit."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string((files(__package__) / TEMPLATE).read_text("utf-8"))
    return template.render(
        report=audit.report,
        verdict=VERDICTS[audit.report["verdict"]],
        leaks=pictures.leaking_pairs(audit),
        conflicts=pictures.conflicting_pairs(audit),
        contradictions=pictures.contradicting_pairs(audit),
        suspects=pictures.suspected_pairs(audit),
        near=pictures.near_duplicate_pairs(audit),
        extremes=pictures.brightness_extremes(audit),
        outliers=pictures.class_outliers(audit),
        alone=pictures.single_castings(audit),
        lighting=pictures.lighting_samples(audit),
        histogram=similarity_histogram(audit),
    )


def similarity_histogram(audit: Audit) -> Histogram | None:
    """Return how the similarities to the nearest image are spread, None where there are none."""
    values = [row.similarity for row in audit.rows if row.nearest]
    if not values:
        return None
    found = audit.report["threshold"]
    threshold = found["similarity"] if found else None
    low = min(*values, *([threshold] if threshold is not None else []))
    low, high = float(np.floor(low * 20) / 20), max(1.0, *values)
    counts, _ = np.histogram(values, bins=BINS, range=(low, high))
    step = CHART_WIDTH / BINS
    bars = []
    for number, count in enumerate(counts):
        # Square roots, so that a few strangers stay visible beside thousands of siblings.
        height = CHART_HEIGHT * float(np.sqrt(count / counts.max()))
        bars.append(Bar(number * step, CHART_HEIGHT - height, step - 1, height, int(count)))
    place = None if threshold is None else CHART_WIDTH * (threshold - low) / (high - low)
    return Histogram(bars, low, high, threshold, place)
