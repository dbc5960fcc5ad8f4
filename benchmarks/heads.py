"""Figures of a head trained behind a frozen trunk whose features are computed once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from bench import Bench
from reference_loop import train as reference_train
from table import Line, compare, finish, in_turns
from torch import nn
from torch.nn import functional
from trainings import fresh_net

from zdm_ml.data.augment import Augmenter
from zdm_ml.data.manifest import Row
from zdm_ml.models.transfer import apply_transfer
from zdm_ml.models.zoo import architecture
from zdm_ml.params import Recipe
from zdm_ml.training.batches import Feed
from zdm_ml.training.device import choose_precision
from zdm_ml.training.frozen import FeatureCache, Halved, halve
from zdm_ml.training.optimization import make_optimizer
from zdm_ml.training.sides import Side
from zdm_ml.training.steps import Classifier

MODEL = "resnet18"
TRANSFER = "feature_extraction"


@dataclass(frozen=True)
class Frozen:
    """Seconds from files on, seconds of one epoch with validation, errors of the last epoch."""

    seconds: float
    epoch: float
    errors: int


def head_only(bench: Bench) -> list[Line]:
    """Train ResNet18's head alone: one epoch once features are there, and all in."""
    recipe = bench.recipe(MODEL, "reference", scratch=False)
    learn = bench.drawn(bench.scaled(toy=8, cpu=96, cuda=1024), "train")
    judge = bench.drawn(bench.scaled(toy=8, cpu=32, cuda=256), "val")
    pairs = in_turns(
        lambda seed: ours(bench, recipe, learn, judge, seed),
        lambda seed: reference(bench, recipe, learn, judge, seed),
        bench.repeats,
    )
    errors = [statistics.median(pair[side].errors for pair in pairs) for side in (0, 1)]
    note = (
        f"{recipe.input_size} px, {len(learn)} images; "
        f"errors of {len(judge)}: ours {errors[0]:g}, reference {errors[1]:g}"
    )
    return [
        compare(
            f"head-only on cached features, per epoch: {MODEL}",
            [(one.epoch, other.epoch) for one, other in pairs],
            bench.goal(cpu=10.0, cuda=25.0),
            bench.label,
            note=note,
        ),
        compare(
            f"head-only on cached features, all in: {MODEL}",
            [(one.seconds, other.seconds) for one, other in pairs],
            None,
            bench.label,
            note=f"{recipe.epochs} epochs, features of at most {bench.params().train.views} views "
            "computed within; no goal of its own: with so few epochs the trunk is most of it",
        ),
    ]


def frozen_net(recipe: Recipe, seed: int) -> nn.Module:
    """Return the net with its head unfrozen alone."""
    net = fresh_net(MODEL, recipe, seed)
    apply_transfer(MODEL, net, TRANSFER)
    return net


def reference(
    bench: Bench, recipe: Recipe, learn: Sequence[Row], judge: Sequence[Row], seed: int
) -> Frozen:
    """Show the whole net every picture of every epoch."""
    files = (bench.files(learn), bench.files(judge))
    net = frozen_net(recipe, seed)
    outcome = reference_train(net, *files, recipe, seed=seed, device=bench.device)
    ends = [0.0, *(epoch.ended for epoch in outcome.epochs)]
    lasted = [end - start for start, end in zip(ends, ends[1:], strict=False)]
    return Frozen(outcome.seconds, statistics.median(lasted), outcome.epochs[-1].errors)


def ours(
    bench: Bench, recipe: Recipe, learn: Sequence[Row], judge: Sequence[Row], seed: int
) -> Frozen:
    """Show the trunk a few views of each picture once, and the head their features."""
    net, device = frozen_net(recipe, seed), bench.device
    started = time.perf_counter()
    sides = bench.sides(recipe.input_size, learn, judge)
    net.to(device=device, memory_format=torch.channels_last)
    with (
        Augmenter(recipe.augment, seed, mean=recipe.mean, std=recipe.std) as augmenter,
        TemporaryDirectory(dir=bench.scratch) as cache,
    ):
        shown = (recipe.sampling, recipe.images_per_epoch, recipe.batch_size, seed)
        feed = Feed(sides[0], *shown, augmenter)
        views = FeatureCache(Path(cache), TRANSFER, bench.params().train.views)
        classifier = _classifier(bench, net, recipe)
        halved = halve(classifier, feed, sides[1], recipe, views)
        if halved is None:
            raise RuntimeError(f"{MODEL} has no features to cache")
        optimizer = make_optimizer(net, recipe)
        lasted = [_epoch(halved, optimizer, sides[1], epoch) for epoch in range(recipe.epochs)]
    errors = lasted[-1][1]
    taken = time.perf_counter() - started
    return Frozen(taken, statistics.median(each for each, _ in lasted), errors)


def _classifier(bench: Bench, net: nn.Module, recipe: Recipe) -> Classifier:
    precision = choose_precision(
        bench.params().train.precision, bench.device, gains=architecture(MODEL).gains_bf16
    )
    shape = (recipe.input_size, recipe.mean, recipe.std, recipe.standardise)
    return Classifier(MODEL, net, bench.device, precision, *shape)


def _epoch(
    halved: Halved, optimizer: torch.optim.Optimizer, judge: Side, epoch: int
) -> tuple[float, int]:
    """Train the tail on one view of each image and validate it; return seconds and errors."""
    started, tail = time.perf_counter(), halved.classifier
    tail.net.train()
    for features, targets in halved.feed.batches(epoch + 1):
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(tail.logits(features), tail.to_device(targets))
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        tail.net.eval()
        pictures = halved.judge.pictures(slice(None)) if halved.judge else None
        judged = tail.logits(pictures).argmax(1).cpu().numpy()
    finish()
    return time.perf_counter() - started, int((judged != judge.targets).sum())
