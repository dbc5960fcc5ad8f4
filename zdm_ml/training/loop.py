"""The training loop: Adam, one learning rate per epoch, the best epoch by validation loss."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zdm_ml.data.augment import Augmenter
from zdm_ml.errors import TrainingError
from zdm_ml.models.transfer import train_mode
from zdm_ml.params import Recipe, TrainParams
from zdm_ml.training import checkpoint as checkpoints
from zdm_ml.training.batches import Feed
from zdm_ml.training.device import choose_precision, repeatable, seed_everything
from zdm_ml.training.steps import (
    Classifier,
    Images,
    OnStep,
    Targets,
    Ticker,
    train_one_epoch,
    validate,
)

log = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class EpochRecord:
    """One epoch, counted from 1; losses are means per image, `seconds` includes validation."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    images_per_second: float
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """`resumed_after` is the number of epochs taken over from a checkpoint."""

    best_epoch: int
    history: list[EpochRecord]
    resumed_after: int


@dataclass
class _State:
    """All that a killed training needs to go on."""

    net: nn.Module
    optimizer: torch.optim.Adam
    scheduler: torch.optim.lr_scheduler.ExponentialLR
    best: Tensors = field(default_factory=dict)
    best_epoch: int = 0
    history: list[EpochRecord] = field(default_factory=list)

    def keep(self, record: EpochRecord) -> None:
        """Add an epoch and, when its validation loss is the lowest so far, remember its net."""
        lowest = min((past.val_loss for past in self.history), default=math.inf)
        self.history.append(record)
        if record.val_loss < lowest:
            self.best_epoch = record.epoch
            self.best = {k: v.detach().clone() for k, v in self.net.state_dict().items()}

    def to_dict(self, signature: dict[str, Any]) -> dict[str, Any]:
        """Return what `restore` takes; a best epoch that is the last one is not stored twice."""
        return {
            "signature": signature,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "best": None if self.best_epoch == len(self.history) else self.best,
            "best_epoch": self.best_epoch,
            "history": [asdict(record) for record in self.history],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to the end of the epoch that `state` was saved after."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.best = state["net"] if state["best"] is None else state["best"]
        self.best_epoch = state["best_epoch"]
        self.history = [EpochRecord(**record) for record in state["history"]]


def train(
    name: str,
    net: nn.Module,
    train_images: Images,
    train_targets: Targets,
    val_images: Images,
    val_targets: Targets,
    *,
    recipe: Recipe,
    params: TrainParams,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    on_step: OnStep = lambda done, total, epoch: None,
) -> TrainResult:
    """Train the parameters of `net` that require a gradient; leave the best epoch's net in it.

    Images are uint8 [N, S, S] of the net's input size, targets int64 [N] (1 = defect).
    `on_step(done, total, epoch)` counts the images of one epoch and is called at most five times
    per second. With `checkpoint`, a killed training goes on at its epoch and ends, on a CPU with
    as many threads, with the same bits; `on_epoch` sees only the epochs trained here. The caller
    removes the checkpoint once it has saved the net. Raises `TrainingError` on too few images,
    on nothing to train and on a loss that is not finite.
    """
    _check(name, net, train_images, val_images)
    classifier = _place(name, net, train_images.shape[-1], params, device)
    signature = _signature(classifier, recipe, params, seed, len(train_images), len(val_images))
    state = _begin(classifier, recipe, checkpoint, signature)
    resumed_after = len(state.history)
    with repeatable(device), Augmenter(params.augment, seed) as augmenter:
        feed = Feed(train_images, train_targets, params.batch_size, seed, augmenter)
        for epoch in range(resumed_after + 1, recipe.epochs + 1):
            record = _one_epoch(classifier, state, feed, val_images, val_targets, epoch, on_step)
            state.keep(record)
            if checkpoint:
                checkpoints.save(checkpoint, state.to_dict(signature))
            on_epoch(record)
    net.load_state_dict(state.best)
    net.eval()
    return TrainResult(state.best_epoch, state.history, resumed_after)


def _one_epoch(
    classifier: Classifier,
    state: _State,
    feed: Feed,
    val_images: Images,
    val_targets: Targets,
    epoch: int,
    on_step: OnStep,
) -> EpochRecord:
    started = time.perf_counter()
    # Per epoch, so that dropout after a resume draws what it would have drawn.
    seed_everything(feed.seed * 1_000_003 + epoch)
    train_mode(classifier.net)
    ticker = Ticker(on_step, len(feed.images), epoch)
    train_loss = train_one_epoch(classifier, state.optimizer, feed.batches(epoch), ticker)
    trained = time.perf_counter()
    val_loss, val_accuracy = validate(classifier, val_images, val_targets, epoch)
    rate = float(state.scheduler.get_last_lr()[0])
    state.scheduler.step()
    return EpochRecord(
        epoch=epoch,
        train_loss=train_loss,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        learning_rate=rate,
        images_per_second=len(feed.images) / (trained - started),
        seconds=time.perf_counter() - started,
    )


def _place(
    name: str, net: nn.Module, size: int, params: TrainParams, device: torch.device
) -> Classifier:
    net.to(device)
    if device.type == "cuda":
        net.to(memory_format=torch.channels_last)
    precision = choose_precision(params.precision, device)
    return Classifier(name, net, device, precision, size, params.mean, params.std)


def _begin(
    classifier: Classifier, recipe: Recipe, checkpoint: Path | None, signature: dict[str, Any]
) -> _State:
    net = classifier.net
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(
        trainable, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    state = _State(net, optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, recipe.gamma))
    if checkpoint and (saved := checkpoints.load(checkpoint, signature)):
        state.restore(saved)
        done = len(state.history)
        log.info("%s: goes on after epoch %d of %d", classifier.name, done, recipe.epochs)
    return state


def _signature(
    classifier: Classifier,
    recipe: Recipe,
    params: TrainParams,
    seed: int,
    *counts: int,
) -> dict[str, Any]:
    """Return what must be equal for a checkpoint to fit: a guard beside the caller's file name."""
    net = classifier.net
    return {
        "name": classifier.name,
        "precision": classifier.precision,
        "seed": seed,
        "images": list(counts),
        "recipe": asdict(recipe),
        "params": {key: value for key, value in asdict(params).items() if key != "device"},
        "tensors": {key: list(value.shape) for key, value in net.state_dict().items()},
        "trainable": [key for key, value in net.named_parameters() if value.requires_grad],
        "input_size": classifier.input_size,
    }


def _check(name: str, net: nn.Module, train_images: Images, val_images: Images) -> None:
    if len(train_images) < 2 or len(val_images) < 1:
        raise TrainingError(
            f"{name}: {len(train_images)} images to train on and {len(val_images)} to validate;"
            " it needs at least 2 and 1",
            hint="import more images, or raise split.train_limit and split.holdout_limit",
        )
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise TrainingError(
            f"{name}: every parameter is frozen",
            hint=f"correct models.{name}.transfer in params.yaml",
        )
