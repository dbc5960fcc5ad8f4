"""Figures of whole trainings with the same recipe on both sides."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from bench import Bench
from reference_loop import WORKERS
from reference_loop import train as reference_train
from table import Line, compare, in_turns
from torch import nn

from zdm_ml.data.manifest import CLASSES
from zdm_ml.models import zoo
from zdm_ml.models.scoring import InputSpec, ScoringModule
from zdm_ml.recipes import Recipe
from zdm_ml.training.device import Precision, choose_precision, seed_everything
from zdm_ml.training.frozen import FeatureCache
from zdm_ml.training.loop import EpochRecord, TrainResult, train
from zdm_ml.training.sides import Side

OnEpoch = Callable[[EpochRecord], None]
Scores = npt.NDArray[np.float64]

BATCH = 64
"""Images that are scored at once."""


@dataclass(frozen=True)
class Trained:
    """Wall time of a training from files on, and the errors on the validation images."""

    seconds: float
    errors: int


def fresh_net(name: str, recipe: Recipe, seed: int) -> nn.Module:
    """Return the net with the random weights that a seed gives."""
    seed_everything(seed)
    return zoo.build(name, recipe.input_size, len(CLASSES), recipe.name)


def precision_of(bench: Bench) -> Precision:
    """Return what the engine trains in on this device."""
    return choose_precision(bench.params().train.precision, bench.device)


def run_engine(
    bench: Bench,
    name: str,
    net: nn.Module,
    sides: Sequence[Side],
    recipe: Recipe,
    seed: int,
    on_epoch: OnEpoch = lambda record: None,
    features: FeatureCache | None = None,
) -> TrainResult:
    """Train `net` as the product does, on the first of `sides` beside the second."""
    return train(
        name,
        net,
        *sides,
        recipe=recipe,
        precision=bench.params().train.precision,
        seed=seed,
        device=bench.device,
        features=features,
        on_epoch=on_epoch,
    )


def same_recipe(bench: Bench) -> list[Line]:
    """Same net, images, epochs and seed on both sides, from files to the best epoch's net."""
    models = bench.scaled(toy=("luna",), cpu=("luna", "resnet18"), cuda=zoo.MODEL_NAMES)
    lines = [_same_recipe(bench, name) for name in models]
    ratio = statistics.geometric_mean(line.ratio for line in lines)
    goal = bench.goal(cpu=1.8, cuda=10.0)
    mean = Line(
        "same recipe: geometric mean of the models",
        statistics.geometric_mean(line.ours for line in lines),
        statistics.geometric_mean(line.reference for line in lines),
        ratio,
        goal,
        None if goal is None else ratio >= goal,
        bench.label,
        "s",
        f"of {', '.join(models)}",
    )
    return [*lines, mean]


def _same_recipe(bench: Bench, name: str) -> Line:
    images = bench.scaled(toy=8, cpu={"luna": 192}.get(name, 96), cuda=1024)
    epochs = bench.scaled(toy=1, cpu=2, cuda=4)
    recipe = bench.recipe(name, "reference", epochs=epochs)
    learn, judge = bench.drawn(images, "train"), bench.drawn(max(8, images // 4), "val")

    def ours(seed: int) -> Trained:
        net = fresh_net(name, recipe, seed)
        started = time.perf_counter()
        sides = bench.sides(recipe.input_size, learn, judge)
        result = run_engine(bench, name, net, sides, recipe, seed)
        taken = time.perf_counter() - started
        kept = result.history[result.best_epoch - 1]
        return Trained(taken, errors_of(kept, sides[1]))

    def reference(seed: int) -> Trained:
        net = fresh_net(name, recipe, seed)
        files = (bench.files(learn), bench.files(judge))
        outcome = reference_train(net, *files, recipe, seed=seed, device=bench.device)
        return Trained(outcome.seconds, outcome.kept.errors)

    if bench.device.type == "cuda":  # what a process pays once belongs to neither side
        ours(0), reference(0)
    pairs = in_turns(ours, reference, bench.repeats)
    errors = [statistics.median(pair[side].errors for pair in pairs) for side in (0, 1)]
    note = (
        f"{recipe.input_size} px, {epochs} epochs of {len(learn)} images; errors of {len(judge)}: "
        f"ours {errors[0]:g}, reference {errors[1]:g}; ours in {precision_of(bench)}, "
        f"reference in fp32 with {WORKERS} loader workers"
    )
    taken = [(one.seconds, other.seconds) for one, other in pairs]
    return compare(f"same recipe: {name}", taken, None, bench.label, note=note)


def errors_of(record: EpochRecord, judge: Side) -> int:
    """Return the wrong answers, at 0.5, that an epoch's accuracy stands for."""
    return round((1 - record.val_accuracy) * len(judge))


@torch.inference_mode()
def score_side(net: nn.Module, side: Side, spec: InputSpec) -> Scores:
    """Return P(defect), float64 [N], of a side's images in fp32."""
    device = next(net.parameters()).device
    module = ScoringModule(net, spec).eval()
    batches = [
        module(torch.from_numpy(side.pictures(slice(start, start + BATCH))).to(device))
        for start in range(0, len(side), BATCH)
    ]
    scores: Scores = torch.cat(batches).double().cpu().numpy()
    return scores
