"""All that a killed training needs to go on: what it holds between two steps, and its beginning."""

from __future__ import annotations

import hashlib
import logging
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zdm_ml.recipes import Keep, Recipe
from zdm_ml.training import checkpoint as checkpoints
from zdm_ml.training.optimization import (
    MovingAverage,
    Scheduler,
    make_optimizer,
    make_scheduler,
)
from zdm_ml.training.sides import Side
from zdm_ml.training.steps import Classifier

log = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class EpochRecord:
    """One epoch, counted from 1; losses are means per image, `seconds` includes validation.

    `images_per_second` counts the images of all processes that train together.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    images_per_second: float
    seconds: float


@dataclass
class State:
    """A training between two steps."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    average: MovingAverage | None
    keep: Keep
    steps: int = 0
    best: Tensors = field(default_factory=dict)
    best_epoch: int = 0
    history: list[EpochRecord] = field(default_factory=list)

    @property
    def judged(self) -> nn.Module:
        """The net that an epoch ends with: the average where there is one."""
        return self.average.net if self.average else self.net

    def update(self) -> None:
        """Take one step down the gradient that the net's parameters hold."""
        self.optimizer.step()
        self.scheduler.step()
        self.steps += 1
        if self.average:
            self.average.update(self.net, self.steps)

    def keep_epoch(self, record: EpochRecord) -> None:
        """Add an epoch; remember its net where the recipe keeps the last, or the best so far."""
        lowest = min((past.val_loss for past in self.history), default=math.inf)
        self.history.append(record)
        if self.keep == "last" or record.val_loss < lowest:
            self.best_epoch = record.epoch
            self.best = {k: v.detach().clone() for k, v in self.judged.state_dict().items()}

    def to_dict(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return what `restore` takes; a best epoch that is the last one is not stored twice."""
        return {
            "signature": facts,
            "net": self.net.state_dict(),
            "average": self.average.net.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "steps": self.steps,
            "best": None if self.best_epoch == len(self.history) else self.best,
            "best_epoch": self.best_epoch,
            "history": [asdict(record) for record in self.history],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to the end of the epoch that `state` was saved after."""
        self.net.load_state_dict(state["net"])
        if self.average:
            self.average.net.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.steps = state["steps"]
        last = state["average"] if self.average else state["net"]
        self.best = last if state["best"] is None else state["best"]
        self.best_epoch = state["best_epoch"]
        self.history = [EpochRecord(**record) for record in state["history"]]


def begin(
    classifier: Classifier,
    recipe: Recipe,
    steps: int,
    checkpoint: Path | None,
    facts: dict[str, Any],
) -> State:
    """Return the state before an epoch of `steps`: the first, or the one after the checkpoint's."""
    net = classifier.net
    optimizer = make_optimizer(net, recipe)
    scheduler = make_scheduler(optimizer, recipe, steps)
    average = MovingAverage(net, recipe.averaging) if recipe.averaging else None
    state = State(net, optimizer, scheduler, average, recipe.keep)
    if checkpoint and (saved := checkpoints.load(checkpoint, facts)):
        state.restore(saved)
        done = len(state.history)
        log.info("%s: goes on after epoch %d of %d", classifier.name, done, recipe.epochs)
    return state


def signature(
    classifier: Classifier, recipe: Recipe, seed: int, learn: Side, held_out: int
) -> dict[str, Any]:
    """Return what must be equal for a checkpoint to fit: a guard beside the caller's file name.

    Of `learn` it tells which images there are and what they show; the file name stands for their
    pixels. `held_out` images are validated on.
    """
    net = classifier.net
    return {
        "name": classifier.name,
        "precision": classifier.precision,
        "seed": seed,
        "learn": _digest(learn),
        "held_out": held_out,
        "recipe": asdict(recipe),
        "tensors": {key: list(value.shape) for key, value in net.state_dict().items()},
        "trainable": [key for key, value in net.named_parameters() if value.requires_grad],
    }


def _digest(side: Side) -> str:
    """Return the hex sha256 of which images a side has and what they show."""
    arrays = (side.places, side.targets, side.castings)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
