"""Figures of whole trainings: the same recipe on both sides, and the time to as few errors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import Bench
from reference_loop import train as reference_train
from table import Line, compare, in_turns
from torch import nn

from zdm_ml.data.manifest import CLASSES, Row
from zdm_ml.models import zoo
from zdm_ml.params import Recipe
from zdm_ml.training.device import seed_everything
from zdm_ml.training.loop import EpochRecord, TrainResult, train
from zdm_ml.training.sides import Side

JUDGED = 256
"""At most as many validation images as the engine looks at after every epoch."""

OnEpoch = Callable[[EpochRecord], None]


@dataclass(frozen=True)
class Trained:
    """Wall time of a training from files on, and the errors on the validation images."""

    seconds: float
    errors: int


def fresh_net(name: str, recipe: Recipe, seed: int) -> nn.Module:
    """Return the net with the random weights that a seed gives."""
    seed_everything(seed)
    return zoo.build(name, recipe.input_size, len(CLASSES), recipe.name)


def run_engine(
    bench: Bench,
    name: str,
    net: nn.Module,
    sides: Sequence[Side],
    recipe: Recipe,
    seed: int,
    on_epoch: OnEpoch = lambda record: None,
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
    images = bench.scaled(toy=8, cpu={"luna": 256}.get(name, 96), cuda=1024)
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
        return Trained(taken, _errors(kept, sides[1]))

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
        f"ours {errors[0]:g}, reference {errors[1]:g}"
    )
    taken = [(one.seconds, other.seconds) for one, other in pairs]
    return compare(f"same recipe: {name}", taken, None, bench.label, note=note)


def time_to_errors(bench: Bench) -> list[Line]:
    """Time until recipe modern makes as few errors as the reference at its best.

    LUNA on both sides; no casting is on both sides of the split.
    """
    learn = bench.drawn(bench.scaled(toy=16, cpu=320, cuda=2000), "train")
    judge = bench.drawn(bench.scaled(toy=8, cpu=192, cuda=JUDGED), "val", "calibration")
    epochs = bench.scaled(toy=1, cpu=6, cuda=50)
    races = [_race(bench, learn, judge, epochs, seed) for seed in range(1, bench.repeats + 1)]
    pairs = [(race.ours.seconds, race.reference.seconds) for race in races]
    median = compare("", pairs, None, bench.label)
    ratio = statistics.median(race.ratio for race in races)
    goal = bench.goal(cpu=5.0, cuda=20.0)
    note = (
        f"LUNA, {len(learn)} images of {len({row.part for row in learn})} castings, {epochs} "
        f"epochs of the reference; errors of {len(judge)} images of "
        f"{len({row.part for row in judge})} castings: {'; '.join(map(str, races))}"
    )
    met = None if goal is None else ratio >= goal
    figure = "time to the reference's error count: luna"
    return [Line(figure, median.ours, median.reference, ratio, goal, met, bench.label, "s", note)]


@dataclass(frozen=True)
class _Race:
    """Both sides of one seed; `best_after` is when the reference first had its fewest errors."""

    ours: Trained
    reference: Trained
    best_after: float

    @property
    def reached(self) -> bool:
        return self.ours.errors <= self.reference.errors

    @property
    def ratio(self) -> float:
        """How many times as fast ours was; 0 where it never got there."""
        return self.reference.seconds / self.ours.seconds if self.reached else 0.0

    def __str__(self) -> str:
        return (
            f"ours {self.ours.errors}{'' if self.reached else ' (never as few)'} after "
            f"{self.ours.seconds:.0f} s, reference {self.reference.errors} after "
            f"{self.best_after:.0f} s of {self.reference.seconds:.0f} s"
        )


def _race(
    bench: Bench, learn: Sequence[Row], judge: Sequence[Row], epochs: int, seed: int
) -> _Race:
    recipe = bench.recipe("luna", "reference", epochs=epochs)
    files = (bench.files(learn), bench.files(judge))
    net = fresh_net("luna", recipe, seed)
    outcome = reference_train(net, *files, recipe, seed=seed, device=bench.device)
    best = outcome.fewest
    reference = Trained(outcome.seconds, best.errors)
    ours = _until(bench, learn, judge, reference, seed)
    return _Race(ours, reference, best.ended)


class _Decided(Exception):  # noqa: N818 (the end of a race is no error)
    """Ends a training whose further epochs do not count."""


def _until(
    bench: Bench, learn: Sequence[Row], judge: Sequence[Row], target: Trained, seed: int
) -> Trained:
    """Train recipe modern until it has as few errors as `target`, or its time is over."""
    profile = bench.scaled(toy="smoke", cpu="quick", cuda="full")
    recipe = bench.recipe("luna", "modern", profile=profile)
    net = fresh_net("luna", recipe, seed)
    reached: list[Trained] = []
    started = time.perf_counter()
    sides = bench.sides(recipe.input_size, learn, judge)

    def look(record: EpochRecord) -> None:
        now = Trained(time.perf_counter() - started, _errors(record, sides[1]))
        reached.append(now)
        if now.errors <= target.errors or now.seconds > target.seconds:
            raise _Decided

    try:
        run_engine(bench, "luna", net, sides, recipe, seed, look)
    except _Decided:
        return reached[-1]
    return Trained(reached[-1].seconds, min(now.errors for now in reached))


def _errors(record: EpochRecord, judge: Side) -> int:
    return round((1 - record.val_accuracy) * len(judge))
