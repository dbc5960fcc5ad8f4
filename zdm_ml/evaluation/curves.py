"""A training's picture: losses and validation accuracy by epoch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Protocol

_TRAIN, _VAL = "#9fb3c8", "#0b6e4f"


class Epoch(Protocol):
    """What of an epoch is drawn."""

    @property
    def epoch(self) -> int: ...
    @property
    def train_loss(self) -> float: ...
    @property
    def val_loss(self) -> float: ...
    @property
    def val_accuracy(self) -> float: ...


def learning_curve(title: str, history: Sequence[Epoch], kept: int) -> bytes:
    """Return a PNG of the losses above the accuracy, with a line at the epoch that was kept."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    epochs = [record.epoch for record in history]
    mark = "o" if len(epochs) == 1 else ""
    above.plot(epochs, [it.train_loss for it in history], mark, ls="-", color=_TRAIN, label="train")
    above.plot(
        epochs, [it.val_loss for it in history], mark, ls="-", color=_VAL, label="validation"
    )
    below.plot(epochs, [it.val_accuracy for it in history], mark, ls="-", color=_VAL)
    above.set(title=title, ylabel="loss")
    above.legend(frameon=False)
    below.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, 1.02))
    for axes in (above, below):
        axes.axvline(kept, color="#5b6b7a", lw=0.8, ls=":")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    # Without the software's version the same figures give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
