"""Who follows a training is told here: the screen or log, MLflow, and `zdm run`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from zdm_ml.files import write_json
from zdm_ml.pipeline.stages import Context
from zdm_ml.registry.tracking import ModelRun
from zdm_ml.training.loop import EpochRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a training is: epochs and images count over all its nets; `last` is the last epoch.

    Epoch 0 is before the first: features of `done` images out of `total` are there.
    """

    epoch: int
    epochs: int
    done: int
    total: int
    seconds_left: float | None
    last: EpochRecord | None


Show = Callable[[Progress], None]


class Reporter:
    """Tells how a training of `nets` nets of `epochs` epochs each goes; the last net is kept.

    The file under `progress/` is for followers of an orchestrated run; at a desk there is none.
    """

    def __init__(
        self, context: Context, model: str, epochs: int, nets: int, run: ModelRun, show: Show
    ) -> None:
        run_id = context.settings.run_id
        self.path = context.settings.home / "progress" / f"{run_id}.json" if run_id else None
        self.model, self.run, self.show = model, run, show
        self.epochs, self.nets = epochs, nets
        self.net = 0
        self.last: EpochRecord | None = None
        self._began: tuple[float, float] | None = None

    def begin(self, net: int) -> None:
        """Count what follows to net number `net`, from 0."""
        self.net = net

    def step(self, done: int, total: int, epoch: int) -> None:
        """Tell the share of the epoch that is done, counted in images.

        Epoch 0 makes features for all that follow, and counts for none of them.
        """
        past = self.net * self.epochs + max(0, epoch - 1)
        reached = past + (done / max(1, total) if epoch else 0)
        left = self._seconds_left(reached) if epoch else None
        self.show(
            Progress(
                past + 1 if epoch else 0, self.nets * self.epochs, done, total, left, self.last
            )
        )
        self._write(epoch, reached / (self.nets * self.epochs))

    def epoch(self, record: EpochRecord) -> None:
        """Tell an epoch's figures: one line in the log, one step in MLflow for the kept net."""
        self.last = record
        reached = self.net * self.epochs + record.epoch
        kept = self.net == self.nets - 1
        if kept:
            self.run.epoch(record)
        self._write(record.epoch, reached / (self.nets * self.epochs))
        left = self._seconds_left(reached)
        logger.info(
            "%s%s: epoch %d/%d  train loss %.4f  val loss %.4f  val accuracy %.4f  %.0f images/s%s",
            self.model,
            "" if kept else f", cross-fit {self.net + 1} of {self.nets - 1}",
            record.epoch,
            self.epochs,
            record.train_loss,
            record.val_loss,
            record.val_accuracy,
            record.images_per_second,
            f"  {duration(left)} left" if left else "",
        )

    def _seconds_left(self, reached: float) -> float | None:
        """Return the seconds to the end at the pace since the first look; None without one yet."""
        now = time.monotonic()
        if self._began is None:
            self._began = (now, reached)
        since, first = self._began
        if reached <= first:
            return None
        return (now - since) / (reached - first) * (self.nets * self.epochs - reached)

    def _write(self, epoch: int, share: float) -> None:
        if self.path is None:
            return
        content = {
            "stage": f"train@{self.model}",
            "model": self.model,
            "epoch": epoch,
            "epochs": self.epochs,
            "percent": round(100 * share, 1),
            "images_per_second": round(self.last.images_per_second, 1) if self.last else None,
            "loss": round(self.last.val_loss, 4) if self.last else None,
            "updated": time.time(),
        }
        write_json(self.path, content)


def duration(seconds: float) -> str:
    """Return seconds for people: 40 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
