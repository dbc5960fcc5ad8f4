"""The training loop: a recipe's epochs, a checkpoint after each, the kept epoch at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from zdm_ml.errors import TrainingError
from zdm_ml.models.transfer import train_mode
from zdm_ml.recipes import Recipe
from zdm_ml.training import checkpoint as checkpoints
from zdm_ml.training.device import allow_tf32, choose_precision, repeatable, seed_everything
from zdm_ml.training.frozen import FeatureCache
from zdm_ml.training.micro_batches import MicroBatches, named_when_out_of_memory
from zdm_ml.training.parallel import ALONE, Processes
from zdm_ml.training.sides import Side
from zdm_ml.training.sources import CURVE_IMAGES, Curve, Source, open_source
from zdm_ml.training.state import EpochRecord, State, begin, signature
from zdm_ml.training.steps import Classifier, OnStep, Ticker, train_one_epoch, validate

__all__ = ["CURVE_IMAGES", "Curve", "EpochRecord", "TrainResult", "train"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """`resumed_after` is the number of epochs taken over from a checkpoint."""

    best_epoch: int
    history: list[EpochRecord]
    resumed_after: int


@dataclass(frozen=True)
class _Training:
    """What does not change from epoch to epoch; `learner` is the classifier as processes share it.

    Batches and validation have limits of their own to how many images pass at once.
    """

    learner: Classifier
    state: State
    source: Source
    recipe: Recipe
    processes: Processes
    learning: MicroBatches
    judging: MicroBatches
    on_step: OnStep

    def epoch(self, number: int) -> EpochRecord:
        """Train and validate an epoch."""
        started = time.perf_counter()
        feed, processes = self.source.feed, self.processes
        # Per epoch, so that dropout after a resume draws what it would have drawn.
        seed_everything(processes.seed(feed.seed * 1_000_003 + number))
        train_mode(self.learner.net)
        rate = float(self.state.scheduler.get_last_lr()[0])
        train_loss = train_one_epoch(
            self.learner,
            feed.batches(number),
            self.state.update,
            Ticker(self.on_step, feed.count, number),
            self.recipe.label_smoothing,
            micro=self.learning,
            processes=processes,
            sizes=None if processes.alone else map(len, feed.order(number)),
        )
        trained = time.perf_counter()
        val_loss, val_accuracy = self._validate(number)
        return EpochRecord(
            epoch=number,
            train_loss=train_loss,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=rate,
            images_per_second=feed.count / (trained - started),
            seconds=time.perf_counter() - started,
        )

    def _validate(self, number: int) -> tuple[float, float]:
        """Return loss and accuracy, of the leading process for all."""
        classifier, judge = self.source.classifier, self.source.judge
        if isinstance(judge, Curve):
            return judge.losses[number - 1], judge.accuracies[number - 1]
        found = (0.0, 0.0)
        if self.processes.leads:
            judged = replace(classifier, net=self.state.judged)
            found = validate(judged, judge, number, self.judging)
        loss, accuracy = self.processes.told(found, classifier.device)
        return loss, accuracy


def train(
    name: str,
    net: nn.Module,
    learn: Side,
    judge: Side | Curve,
    *,
    recipe: Recipe,
    precision: str,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    features: FeatureCache | None = None,
    processes: Processes = ALONE,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    on_step: OnStep = lambda done, total, epoch: None,
) -> TrainResult:
    """Train the parameters of `net` that require a gradient; leave the kept epoch's net in it.

    `learn` is trained on, `judge` is validated on after each epoch, unless it is the curve of
    other nets; images are uint8 [N, S, S] of the net's input size. `on_step(done, total, epoch)`
    counts the images of one epoch, at most five times per second, or under epoch 0 those whose
    features are made. With `checkpoint`, a killed training goes on at its epoch and ends, on a CPU
    with as many threads, with the same bits; `on_epoch` sees only the epochs trained here. The
    caller removes the checkpoint once it has saved the net. With `features` those of a frozen
    trunk are computed once and cached. Each of several `processes`, which the caller has joined,
    calls this with the same arguments and gets the same net; the leading one alone calls
    `on_epoch` and `on_step` and writes the checkpoint, all read it. Raises `TrainingError` on too
    few images, on nothing to train, on a loss that is not finite and when a single image does not
    fit in memory.
    """
    _check(name, net, learn, judge)
    on_step = on_step if processes.leads else lambda done, total, epoch: None
    with ExitStack() as stack:
        stack.enter_context(named_when_out_of_memory(name, recipe.batch_size))
        net = processes.synchronised(net, device)
        classifier = _place(name, net, recipe, precision, device)
        held_out = len(judge) if isinstance(judge, Side) else 0
        facts = signature(classifier, recipe, seed, learn, held_out)
        _warn_of_small_shares(recipe, processes)
        stack.enter_context(repeatable(device))
        source = stack.enter_context(
            open_source(classifier, learn, judge, recipe, seed, features, processes, on_step)
        )
        trained = source.classifier
        state = begin(trained, recipe, len(source.feed.order(1)), checkpoint, facts)
        resumed_after = len(state.history)
        processes.agree(name, {**facts, "epochs": resumed_after}, device)
        training = _Training(
            replace(trained, net=processes.shared(trained.net, device)),
            state,
            source,
            recipe,
            processes,
            MicroBatches(name, alone=processes.alone),
            MicroBatches(name),
            on_step,
        )
        for epoch in range(resumed_after + 1, recipe.epochs + 1):
            record = training.epoch(epoch)
            state.keep_epoch(record)
            if not processes.leads:
                continue
            if checkpoint:
                checkpoints.save(checkpoint, state.to_dict(facts))
            on_epoch(record)
    trained.net.load_state_dict(state.best)
    processes.spread(net)
    net.eval()
    return TrainResult(state.best_epoch, state.history, resumed_after)


def _place(
    name: str, net: nn.Module, recipe: Recipe, precision: str, device: torch.device
) -> Classifier:
    # A tensor that is channels_last makes every convolution after it run in that layout.
    # torch's overloads do not know device and memory_format together.
    net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    chosen = choose_precision(precision, device)
    allow_tf32(device, chosen)
    shape = (recipe.input_size, recipe.mean, recipe.std, recipe.standardise)
    return Classifier(name, net, device, chosen, *shape)


def _warn_of_small_shares(recipe: Recipe, processes: Processes) -> None:
    if processes.leads and recipe.batch_size < 2 * processes.count:
        log.warning(
            "batches of %d images are too small for %d processes: each takes them whole, and none"
            " of them saves time",
            recipe.batch_size,
            processes.count,
        )


def _check(name: str, net: nn.Module, learn: Side, judge: Side | Curve) -> None:
    judged = len(judge) if isinstance(judge, Side) else 1
    if len(learn) < 2 or judged < 1:
        raise TrainingError(
            f"{name}: {len(learn)} images to train on and {judged} to validate;"
            " it needs at least 2 and 1",
            hint="import more images, or raise split.train_limit and split.holdout_limit",
        )
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise TrainingError(
            f"{name}: every parameter is frozen",
            hint=f"correct models.{name}.transfer in params.yaml",
        )
