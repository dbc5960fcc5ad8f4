"""Figures of a head trained behind a frozen trunk whose features are computed once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import Bench
from reference_loop import train as reference_train
from table import Line, compare, in_turns
from torch import nn
from trainings import errors_of, fresh_net, run_engine

from zdm_ml.data.manifest import Row
from zdm_ml.models.transfer import apply_transfer
from zdm_ml.recipes import Recipe
from zdm_ml.training.frozen import FeatureCache

MODEL = "resnet18"
TRANSFER = "feature_extraction"


@dataclass(frozen=True)
class Work:
    """What trains a head: how, and on which images."""

    recipe: Recipe
    learn: Sequence[Row]
    judge: Sequence[Row]


@dataclass(frozen=True)
class Frozen:
    """Seconds from files on, seconds of one epoch with validation, errors of the best epoch."""

    seconds: float
    epoch: float
    errors: int


def head_only(bench: Bench) -> list[Line]:
    """Train ResNet18's head alone: one epoch once features are there, and all in."""
    work = Work(
        bench.recipe(MODEL, "reference", scratch=False),
        bench.drawn(bench.scaled(toy=8, cpu=96, cuda=1024), "train"),
        bench.drawn(bench.scaled(toy=8, cpu=32, cuda=256), "val"),
    )
    pairs = in_turns(
        lambda seed: ours(bench, work, seed),
        lambda seed: reference(bench, work, seed),
        bench.repeats,
    )
    errors = [statistics.median(pair[side].errors for pair in pairs) for side in (0, 1)]
    views = bench.params().train.views
    return [
        compare(
            f"head-only on cached features, per epoch: {MODEL}",
            [(one.epoch, other.epoch) for one, other in pairs],
            bench.goal(cpu=10.0, cuda=25.0),
            bench.label,
            note=f"{work.recipe.input_size} px, {len(work.learn)} images; errors of "
            f"{len(work.judge)}: ours {errors[0]:g}, reference {errors[1]:g}",
        ),
        compare(
            f"head-only on cached features, all in: {MODEL}",
            [(one.seconds, other.seconds) for one, other in pairs],
            None,
            bench.label,
            note=f"{work.recipe.epochs} epochs, features of at most {views} views of each image "
            "computed within: that is most of it, and has no goal of its own",
        ),
    ]


def frozen_net(recipe: Recipe, seed: int) -> nn.Module:
    """Return the net with its head unfrozen alone."""
    net = fresh_net(MODEL, recipe, seed)
    apply_transfer(MODEL, net, TRANSFER)
    return net


def reference(bench: Bench, work: Work, seed: int) -> Frozen:
    """Show the whole net every picture of every epoch."""
    outcome = reference_train(
        frozen_net(work.recipe, seed),
        bench.files(work.learn),
        bench.files(work.judge),
        work.recipe,
        seed=seed,
        device=bench.device,
    )
    ends = [0.0, *(epoch.ended for epoch in outcome.epochs)]
    lasted = statistics.median(end - start for start, end in pairwise(ends))
    return Frozen(outcome.seconds, lasted, outcome.kept.errors)


def ours(bench: Bench, work: Work, seed: int) -> Frozen:
    """Show the trunk a few views of each picture once, and the head their features."""
    net, started = frozen_net(work.recipe, seed), time.perf_counter()
    sides = bench.sides(work.recipe.input_size, work.learn, work.judge)
    with TemporaryDirectory(dir=bench.scratch) as folder:
        cache = FeatureCache(Path(folder), TRANSFER, bench.params().train.views)
        result = run_engine(bench, MODEL, net, sides, work.recipe, seed, features=cache)
    taken = time.perf_counter() - started
    lasted = statistics.median(record.seconds for record in result.history)
    return Frozen(taken, lasted, errors_of(result.history[result.best_epoch - 1], sides[1]))
