"""Is the promise of the verdict ok kept as often as it says? A simulation with a known truth.

`python benchmarks/guarantee.py` draws calibration castings again and again from a population whose
true escape rate at any threshold is known, asks for the guarantee, and counts how often the true
rate lies above the promised one: in at most 1 - confidence of the draws, but for chance.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.table import Table
from scipy.stats import binom

from zdm_ml.evaluation.cost import Rates, review_load
from zdm_ml.evaluation.guarantee import guarantee
from zdm_ml.evaluation.verdicts import Verdicts, choose_verdicts
from zdm_ml.params import CostParams, VerdictParams

VIEWS = 3
POPULATION = 100_000
COST = CostParams(
    currency="EUR", escape=2000.0, overkill=10.0, review=2.0, prevalence=0.05, takt_seconds=5.0
)

console = Console(width=150, highlight=False)


@dataclass(frozen=True)
class Castings:
    """Castings of both classes, `VIEWS` images each: scores [P, VIEWS], targets [P]."""

    scores: npt.NDArray[np.float64]
    targets: npt.NDArray[np.int64]

    def images(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], list[str]]:
        """Return scores, targets and parts by image."""
        count = len(self.targets)
        parts = [str(at) for at in np.repeat(np.arange(count), VIEWS)]
        return self.scores.ravel(), np.repeat(self.targets, VIEWS), parts


@dataclass(frozen=True)
class Outcome:
    """One promise: the true escape rates at its limit and of its verdicts, and who reviews."""

    at_limit: float
    of_verdicts: float
    load: float


def draw(rng: np.random.Generator, defective: int, good: int) -> Castings:
    """Return castings whose images vary about a level of their own; the classes overlap."""
    targets = np.repeat([1, 0], [defective, good])
    levels = rng.normal(np.where(targets == 1, 2.0, -2.0), 1.2)
    logits = levels[:, None] + rng.normal(0, 0.5, (len(targets), VIEWS))
    return Castings(1 / (1 + np.exp(-logits)), targets)


def simulate(castings: int, promise: VerdictParams, repetitions: int, seed: int) -> list[Outcome]:
    """Return the promises of calibrations on `castings` defective and half as many good ones."""
    rng = np.random.default_rng(seed)
    truth = draw(rng, POPULATION, POPULATION)
    lowest = np.sort(truth.scores[truth.targets == 1].min(axis=1))
    found = []
    for _ in range(repetitions):
        images = draw(rng, castings, castings // 2).images()
        promised = guarantee(*images, promise, own=True)
        if promised.ok_below is None:
            continue
        verdicts = choose_verdicts(*images, COST, promised.ok_below)
        at_limit, of_verdicts = (
            float(np.searchsorted(lowest, at)) / POPULATION
            for at in (promised.ok_below, verdicts.ok_below)
        )
        load = review_load(COST, true_rates(truth, verdicts))
        found.append(Outcome(at_limit, of_verdicts, load))
    return found


def true_rates(truth: Castings, verdicts: Verdicts) -> Rates:
    """Return what verdicts do to the images of the population."""
    reviewed = (truth.scores >= verdicts.ok_below) & (truth.scores < verdicts.defect_from)
    defect = truth.targets == 1
    return Rates(0.0, 0.0, float(reviewed[defect].mean()), float(reviewed[~defect].mean()))


def within_chance(broken: int, repetitions: int, promise: VerdictParams) -> bool:
    """Tell whether so many broken promises may be chance, at odds of a thousand to one."""
    return float(binom.sf(broken - 1, repetitions, 1 - promise.confidence)) > 1e-3


def main(
    repetitions: Annotated[int, typer.Option(min=10)] = 500,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Print how often the promise was broken, by rate and castings; exit 1 if too often."""
    heads = ("promised rate", "defective castings", "promises", "broken", "allowed", "kept")
    heads += ("true rate at the limit", "of the verdicts", "to review")
    table = Table(*heads, title=f"{repetitions} calibrations each, confidence 95 %")
    kept = True
    for rate, castings in ((0.01, 298), (0.01, 299), (0.01, 1000), (0.05, 200), (0.1, 100)):
        promise = VerdictParams(rate, 0.95)
        made = simulate(castings, promise, repetitions, seed)
        broken = sum(it.at_limit > rate for it in made)
        fine = within_chance(broken, max(1, len(made)), promise)
        kept &= fine
        share = f"{broken / len(made):.1%}" if made else "-"
        means = [*np.mean([astuple(it) for it in made], axis=0)] if made else []
        shown = [f"{value:.2%}" for value in means] or ["-"] * 3
        cells = (f"{rate:.0%}", str(castings), str(len(made)), share, "5 %")
        table.add_row(*cells, "yes" if fine else "NO", *shown)
    console.print(table)
    if not kept:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
