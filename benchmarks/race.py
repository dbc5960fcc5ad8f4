"""The figure of a race: time until recipe modern makes as few errors as the reference."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from bench import Bench
from reference_loop import WORKERS
from reference_loop import train as reference_train
from table import Line, compare
from trainings import Trained, errors_of, fresh_net, run_engine

from zdm_ml.data.manifest import Row
from zdm_ml.training.loop import CURVE_IMAGES, EpochRecord

MODEL = "luna"


def time_to_errors(bench: Bench) -> list[Line]:
    """Time until each side first makes as few errors as the reference at its best.

    Ours is recipe modern. Each repeat holds out another fold of castings: with the few good ones
    of the public set, one fold alone would say little about either side.
    """
    images = bench.scaled(toy=16, cpu=160, cuda=2000)
    epochs = bench.scaled(toy=1, cpu=5, cuda=30)
    # No more than the engine looks at after an epoch, so that it counts the errors of all.
    judged = bench.scaled(toy=8, cpu=CURVE_IMAGES // 2, cuda=CURVE_IMAGES)
    races = [
        _race(bench, *bench.fold(fold, images, judged), epochs, fold)
        for fold in range(bench.repeats)
    ]
    pairs = [(race.ours.seconds, race.reference.seconds) for race in races]
    median = compare("", pairs, None, bench.label)
    ratio = statistics.median(race.ratio for race in races)
    goal = bench.goal(cpu=5.0, cuda=20.0)
    note = (
        "seconds until each side first had as few errors as the reference at its best"
        f"{_unmeasured(bench)}; {images} images, {epochs} epochs of the reference with {WORKERS} "
        f"loader workers, each time another fold of castings held out; errors of {judged} images: "
        f"{'; '.join(map(str, races))}"
    )
    met = None if goal is None else ratio >= goal
    figure = f"time to the reference's error count: {MODEL}"
    return [Line(figure, median.ours, median.reference, ratio, goal, met, bench.label, "s", note)]


def _unmeasured(bench: Bench) -> str:
    """Return what the product does beside what the race times, in words."""
    nets = bench.params().named_recipe("modern", MODEL, scratch=True).crossfit
    return f", ours without cross-fitting, which takes {nets} further trainings" if nets else ""


@dataclass(frozen=True)
class _Race:
    """Both sides on one fold, each when it first had as few errors as the reference at its best.

    `whole` is how long all of the reference's epochs took: if ours had not got there by then,
    its seconds are those that it tried for, its errors its fewest.
    """

    ours: Trained
    reference: Trained
    whole: float

    @property
    def reached(self) -> bool:
        return self.ours.errors <= self.reference.errors and self.ours.seconds <= self.whole

    @property
    def ratio(self) -> float:
        """How many times as fast ours was; 0 where it did not get there in the whole time."""
        return self.reference.seconds / self.ours.seconds if self.reached else 0.0

    def __str__(self) -> str:
        return (
            f"ours {self.ours.errors} after {self.ours.seconds:.3g} s"
            f"{'' if self.reached else ' (never as few in time)'}, reference "
            f"{self.reference.errors} after {self.reference.seconds:.3g} s of {self.whole:.3g} s"
        )


def _race(
    bench: Bench, learn: Sequence[Row], judge: Sequence[Row], epochs: int, seed: int
) -> _Race:
    recipe = bench.recipe(MODEL, "reference", epochs=epochs)
    files = (bench.files(learn), bench.files(judge))
    net = fresh_net(MODEL, recipe, seed)
    outcome = reference_train(net, *files, recipe, seed=seed, device=bench.device)
    best, whole = outcome.fewest, outcome.seconds
    ours = _until(bench, learn, judge, Trained(whole, best.errors), seed)
    return _Race(ours, Trained(best.ended, best.errors), whole)


class _Decided(Exception):  # noqa: N818 (the end of a race is no error)
    """Ends a training whose further epochs do not count."""


def _until(
    bench: Bench, learn: Sequence[Row], judge: Sequence[Row], target: Trained, seed: int
) -> Trained:
    """Train recipe modern until it has as few errors as `target`, or as many seconds are over."""
    recipe = bench.recipe(MODEL, "modern")
    net = fresh_net(MODEL, recipe, seed)
    looks: list[Trained] = []
    started = time.perf_counter()
    sides = bench.sides(recipe.input_size, learn, judge)

    def look(record: EpochRecord) -> None:
        looks.append(Trained(time.perf_counter() - started, errors_of(record, sides[1])))
        if looks[-1].errors <= target.errors or looks[-1].seconds > target.seconds:
            raise _Decided

    with suppress(_Decided):
        run_engine(bench, MODEL, net, sides, recipe, seed, look)
    return Trained(looks[-1].seconds, min(each.errors for each in looks))
