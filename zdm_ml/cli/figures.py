"""Tables of figures by casting and by image, as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

_KINDS = ("by_casting", "by_image")
_FIGURES = ("accuracy", "recall", "escapes", "overkills")
_SIZE = {"by_casting": "castings", "by_image": "images"}


def fold_table(title: str, summary: Mapping[str, Any]) -> Table:
    """Return a row per fold, by casting and then by image; then mean, spread and totals."""
    table = Table("fold", title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for kind in _KINDS:
        for head in (_SIZE[kind], *_FIGURES):
            table.add_column(head, justify="right", no_wrap=True)
    for fold in summary["folds"]:
        table.add_row(str(fold["fold"]), *_cells(fold))
    table.add_section()
    table.add_row("mean", *_cells(summary["mean"]))
    table.add_row("spread", *_cells(summary["spread"]))
    table.add_row("total", *_cells(summary["total"]))
    return table


def casting_failures(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line per casting that a model judged wrongly, with its fold."""
    if not summary["failed"]:
        yield "no casting failed"
    for failure in summary["failed"]:
        what = {"defect": "escape", "ok": "overkill"}.get(failure.get("label", ""), "failed")
        shown = f", {failure['wrong']} of {failure['images']} images" if "wrong" in failure else ""
        yield f"  {what}: casting {failure['part']}{shown}, fold {failure['fold']}"


def protocol_table(models: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return each model's figures under both splits; bounds count castings, never images."""
    table = Table("model", "split", box=SIMPLE, padding=(0, 1, 0, 0))
    for head in ("tested", *_FIGURES, "escape rate\nat most", "overkill rate\nat most"):
        table.add_column(head, justify="right", no_wrap=True)
    for model, of_protocol in models.items():
        for protocol, figures in of_protocol.items():
            for cells in _protocol_rows(protocol, figures):
                table.add_row(model, *cells)
    return table


def _protocol_rows(protocol: str, figures: Mapping[str, Any]) -> Iterator[list[str]]:
    mark = " (LEAKY)" if figures["leaky"] else ""
    shown = [(f"{protocol}{mark}", _SIZE[kind], figures[kind]) for kind in _KINDS]
    if figures.get("seen"):
        shown.append((f"{protocol}, seen castings (LEAKY)", "images", figures["seen"]))
    for name, size, found in shown:
        yield [
            name,
            f"{found[size]} {size}",
            *(_cell(key, found.get(key)) for key in _FIGURES),
            _rate(found.get("escape_rate_upper")),
            _rate(found.get("overkill_rate_upper")),
        ]


def split_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the split did: castings and images per side, and who is on none."""
    for side, castings in report["castings"].items():
        images = report["per_split"][side]
        yield f"{side}: {_per_class(castings, 'castings')}, {_per_class(images, 'images')}"
    if "calibration" not in report["castings"]:
        yield "calibration: too few castings for a side of its own, " + report["calibration"]
    if report["remembered"]:
        yield f"{report['remembered']} castings keep the side that the data version remembers"
    if report["mixed_label"]:
        yield f"{len(report['mixed_label'])} castings carry both labels and are on no side:"
    for mixed in report["mixed_label"]:
        yield f"  {mixed['part']}: {len(mixed['images'])} images, such as {mixed['images'][0]}"


def _per_class(counts: Mapping[str, int], what: str) -> str:
    shown = ", ".join(f"{count} {label}" for label, count in counts.items())
    return f"{sum(counts.values())} {what} ({shown})"


def _cells(figures: Mapping[str, Any]) -> Iterator[str]:
    for kind in _KINDS:
        for key in (_SIZE[kind], *_FIGURES):
            yield _cell(key, figures[kind].get(key))


def _cell(key: str, value: float | None) -> str:
    return _rate(value) if key in ("accuracy", "recall") else _count(value)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
