"""The figure of a whole retraining: all models trained, evaluated, and the best one selected."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import Bench
from reference_loop import WORKERS, score
from reference_loop import train as reference_train
from table import Line, compare, in_turns
from torch import nn
from trainings import fresh_net, run_engine, score_side

from zdm_ml.data.manifest import Row
from zdm_ml.evaluation.calibration import cost_threshold
from zdm_ml.evaluation.figures import decision_figures
from zdm_ml.evaluation.flops import flops
from zdm_ml.evaluation.metrics import metrics
from zdm_ml.evaluation.verdicts import Verdicts
from zdm_ml.models import zoo
from zdm_ml.recipes import Recipe, RecipeName
from zdm_ml.training.sides import Side

LONGEST = 100.0
"""Seconds that ours may take on a GPU, whatever the ratio."""


@dataclass(frozen=True)
class Work:
    """Which models are trained how, and the images that train, validate and test them."""

    recipes: Mapping[str, Recipe]
    learn: Sequence[Row]
    judge: Sequence[Row]
    test: Sequence[Row]


@dataclass(frozen=True)
class Chosen:
    """Wall time from files on, and the model that won with its errors on the test images."""

    seconds: float
    winner: str
    errors: int


def all_eight(bench: Bench) -> list[Line]:
    """All models in turn on the same images with the reference recipe, test images scored.

    Ours also chooses each model's threshold and ranks by cost, as the product does.
    """
    profile = bench.scaled(toy="smoke", cpu="quick", cuda="full")
    work = _work(bench, profile)
    pairs = in_turns(
        lambda seed: ours(bench, work, seed),
        lambda seed: reference(bench, work, seed),
        bench.scaled(toy=1, cpu=bench.repeats, cuda=1),
    )
    epochs = sorted({recipe.epochs for recipe in work.recipes.values()})
    chosen = [_named(side) for side in zip(*pairs, strict=True)]
    note = (
        f"{len(work.recipes)} models at the sizes of profile {profile}, {len(work.learn)} images, "
        f"{' or '.join(map(str, epochs))} epochs, {len(work.test)} test images; "
        f"{len(pairs)} run{'s' if len(pairs) > 1 else ''} of each; chosen: {chosen[0]}, by the "
        f"reference, with {WORKERS} loader workers, {chosen[1]}"
    )
    line = compare(
        "all eight trained, evaluated, selected",
        [(one.seconds, other.seconds) for one, other in pairs],
        bench.goal(cpu=None, cuda=9.0),
        bench.label,
        note=note,
    )
    if line.met is None:
        return [line]
    in_time = line.ours <= LONGEST
    return [replace(line, met=line.met and in_time, note=f"{note}; at most {LONGEST:g} s, too")]


def _work(bench: Bench, profile: str) -> Work:
    models = bench.scaled(toy=("luna", "resnet18"), cpu=zoo.MODEL_NAMES, cuda=zoo.MODEL_NAMES)
    learn, judge, test = (
        bench.scaled(toy=bench.drawn(8, side), cpu=bench.drawn(cpu, side), cuda=bench.whole(side))
        for side, cpu in (("train", 64), ("val", 32), ("test", 64))
    )
    recipes = {
        name: bench.recipe(
            name,
            "reference",
            epochs=bench.scaled(toy=1, cpu=1, cuda=None),
            # As many epochs as from pretrained weights, where a model has them.
            scratch=zoo.architecture(name).weights is None,
            profile=profile,
        )
        for name in models
    }
    return Work(recipes, learn, judge, test)


def _named(sides: Sequence[Chosen]) -> str:
    winner, _ = Counter(side.winner for side in sides).most_common(1)[0]
    return f"{winner} ({' '.join(str(side.errors) for side in sides)} errors)"


def reference(bench: Bench, work: Work, seed: int) -> Chosen:
    """Train every model with the reference loop, score its best epoch; the fewest errors win."""
    learn, judge, test = (bench.files(rows) for rows in (work.learn, work.judge, work.test))
    started, errors = time.perf_counter(), {}
    for name, recipe in work.recipes.items():
        net = fresh_net(name, recipe, seed)
        reference_train(net, learn, judge, recipe, seed=seed, device=bench.device)
        _, errors[name] = score(net, test, recipe, bench.device)
    winner = min(errors, key=errors.__getitem__)
    return Chosen(time.perf_counter() - started, winner, errors[winner])


def ours(bench: Bench, work: Work, seed: int) -> Chosen:
    """Train and score every model with the engine; the lowest expected cost wins."""
    started, judged = time.perf_counter(), {}
    with TemporaryDirectory(dir=bench.scratch) as cache:
        for name, recipe in work.recipes.items():
            groups = (work.learn, work.judge, work.test)
            sides = bench.sides(recipe.input_size, *groups, cache=Path(cache))
            net = fresh_net(name, recipe, seed)
            run_engine(bench, name, net, sides[:2], recipe, seed)
            judged[name] = _judged(bench, net, recipe, sides, work)
    winner = min(judged, key=lambda name: (judged[name][0], flops(name, *_shape(work, name))))
    return Chosen(time.perf_counter() - started, winner, judged[winner][1])


def _judged(
    bench: Bench, net: nn.Module, recipe: Recipe, sides: Sequence[Side], work: Work
) -> tuple[float, int]:
    """Return expected cost and errors on the test images at a threshold of the validation ones."""
    _, judge, test = sides
    cost, parts = bench.params().cost, [row.part for row in work.judge]
    chosen = cost_threshold(score_side(net, judge, recipe), judge.targets, parts, cost)
    scores = score_side(net, test, recipe)
    found = metrics(scores, test.targets, chosen.value)
    verdicts = Verdicts(chosen.value, chosen.value)
    figures = decision_figures(scores, work.test, verdicts, cost)
    return figures["cost"], found["escapes"] + found["overkills"]


def _shape(work: Work, name: str) -> tuple[int, RecipeName]:
    return work.recipes[name].input_size, work.recipes[name].name
