"""K-fold by casting in one process, for experiments: what `zdm experiment kfold` does by stages.

`python benchmarks/folds.py --set recipes.modern.augment.paste=0.3 --tag paste-0.3` trains a model
once per fold of the castings outside the lockbox and prints, for each fold, AUC and errors by
image and by casting at several thresholds, none of which saw the fold's test castings. Scores are
kept under `.zdm/lab/` for a closer look.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
import yaml
from bench import sides_of
from rich.console import Console
from rich.table import Table
from trainings import Scores, score_side

from zdm_ml.data.images import read_stack
from zdm_ml.data.listing import read_listing
from zdm_ml.data.manifest import CLASSES, Row, read_manifest
from zdm_ml.data.sides import remembered_sides
from zdm_ml.data.splits import split_rows
from zdm_ml.evaluation.calibration import cost_threshold
from zdm_ml.evaluation.castings import dealt, group
from zdm_ml.evaluation.metrics import roc_auc
from zdm_ml.models import zoo
from zdm_ml.params import Params, parse_params
from zdm_ml.recipes import Recipe
from zdm_ml.training.crossfit import cross_fit
from zdm_ml.training.device import seed_everything
from zdm_ml.training.loop import Curve, TrainResult, train
from zdm_ml.training.sides import Side

ROOT = Path(__file__).resolve().parents[1]
LAB = ROOT / ".zdm" / "lab"
FOLDS = 5

console = Console(width=150, highlight=False)


@dataclass(frozen=True)
class Trial:
    """One way to train: a model, params with changes laid over them, a seed."""

    model: str
    changes: tuple[str, ...]
    seed: int
    tag: str
    learn_all: bool

    def params(self) -> Params:
        """Return params.yaml with the changes."""
        values = yaml.safe_load((ROOT / "params.yaml").read_text())
        for change in self.changes:
            path, text = change.split("=", 1)
            *sections, key = path.split(".")
            section = values
            for name in sections:
                section = section.setdefault(name, {})
            section[key] = yaml.safe_load(text)
        return parse_params(values, "params with changes")


@dataclass(frozen=True)
class Scored:
    """Images of one side with their scores."""

    scores: Scores
    targets: npt.NDArray[np.int64]
    parts: list[str]

    def by_casting(self) -> tuple[Scores, npt.NDArray[np.int64]]:
        """Return mean scores and targets by casting."""
        castings = group(self.targets, self.parts)
        return castings.sums(self.scores) / castings.images, castings.defective.astype(np.int64)


def main(
    model: Annotated[str, typer.Option()] = "luna",
    change: Annotated[list[str] | None, typer.Option("--set", help="path.in.params=value")] = None,
    folds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1,2,3,4",
    seed: Annotated[int, typer.Option()] = 20,
    tag: Annotated[str, typer.Option()] = "trial",
    learn_all: Annotated[
        bool, typer.Option(help="Train on val and calibration too; thresholds come across folds.")
    ] = False,
    processes: Annotated[int, typer.Option()] = 2,
) -> None:
    """Train and score each fold, print the table."""
    torch.set_num_threads(1)
    trial = Trial(model, tuple(change or ()), seed, tag, learn_all)
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        found = list(pool.map(partial(run_fold, trial), map(int, folds.split(","))))
    show(tag, found)
    across_folds(tag, trial, [int(fold) for fold in folds.split(",")])
    (LAB / f"{tag}-{seed}.json").write_text(json.dumps(found, indent=1) + "\n")


def run_fold(trial: Trial, fold: int) -> dict[str, Any]:
    """Train on a fold's learning castings and return its figures."""
    torch.set_num_threads(1)
    params = trial.params()
    rows = _rows(params, fold)
    recipe = params.recipe(trial.model, scratch=True)
    stack = read_stack(ROOT / "data/castings", [row.path for row in rows], recipe.input_size)
    sides = _sides(stack, rows)
    started = time.perf_counter()
    net, fitted = _fitted(trial, params, recipe, sides, rows)
    seconds = time.perf_counter() - started
    skipped = {"train", "fitted"} if fitted is None else {"train", "val", "calibration"}
    if trial.learn_all:
        skipped |= {"val", "calibration"}
    scored = {
        name: Scored(
            fitted if name == "fitted" else score_side(net, side, recipe),
            side.targets,
            [rows[at].part for at in side.places],
        )
        for name, side in sides.items()
        if len(side) and name not in skipped
    }
    even = score_side(net, equalised(sides["test"]), recipe)
    scored["equalised"] = replace(scored["test"], scores=even)
    LAB.mkdir(parents=True, exist_ok=True)
    np.savez(
        LAB / f"{trial.tag}-{fold}-{trial.seed}.npz",
        **{f"{n}_{k}": np.asarray(v) for n, s in scored.items() for k, v in vars(s).items()},
    )
    found = {"fold": fold, "seconds": round(seconds), **figures(scored, params)}
    console.print(found, markup=False)
    return found


def equalised(side: Side) -> Side:
    """Return the side with every picture as bright, on the average, as all of them are."""
    pictures = side.pictures(slice(None)).astype(np.float64)
    means = pictures.mean((1, 2), keepdims=True)
    levels = np.clip(np.rint(pictures * (means.mean() / means)), 0, 255).astype(np.uint8)
    return Side(levels, np.arange(len(levels)), side.targets, side.castings)


def _fitted(
    trial: Trial, params: Params, recipe: Recipe, sides: dict[str, Side], rows: Sequence[Row]
) -> tuple[torch.nn.Module, Scores | None]:
    """Return the trained net and, if the recipe cross-fits, scores by nets that did not see."""

    def run(net: torch.nn.Module, learn: Side, judge: Side | Curve) -> TrainResult:
        return train(
            trial.model,
            net,
            learn,
            judge,
            recipe=recipe,
            precision=params.train.precision,
            seed=trial.seed,
            device=torch.device("cpu"),
        )

    def fresh() -> torch.nn.Module:
        seed_everything(trial.seed)
        return zoo.build(trial.model, recipe.input_size, len(CLASSES), recipe.name)

    def held_out(number: int, learn: Side, judge: Side) -> tuple[torch.nn.Module, Any]:
        net = fresh()
        return net, run(net, learn, judge).history

    net, learn = fresh(), sides["fitted"]
    if trial.learn_all:
        run(net, learn, Curve([0.0] * recipe.epochs, [0.0] * recipe.epochs))
        return net, None
    if not recipe.crossfit:
        run(net, sides["train"], sides["val"])
        return net, None
    families = group(learn.targets, [rows[at].family for at in learn.places])
    groups = dealt(families, recipe.crossfit)[families.place]
    fit = cross_fit(learn, groups, held_out, partial(score_side, spec=recipe))
    run(net, learn, fit.curve)
    return net, fit.scores


def figures(scored: dict[str, Scored], params: Params) -> dict[str, Any]:
    """Return AUC and errors of the test castings at each threshold that can be had."""
    test = scored["test"]
    means, targets = test.by_casting()
    even, _ = scored["equalised"].by_casting()
    thresholds = {"half": 0.5}
    held = [scored[name] for name in ("val", "calibration") if name in scored]
    held = [scored["fitted"]] if "fitted" in scored else held
    if held:
        side = joined(held)
        thresholds["held-out"] = cost_threshold(
            side.scores, side.targets, side.parts, params.cost
        ).value
    return {
        "auc_image": roc_auc(test.scores, test.targets),
        "auc_casting": roc_auc(means, targets),
        "castings": len(targets),
        "good": np.round(np.sort(_logit(means[targets == 0])), 1).tolist(),
        "worst": np.round(np.sort(_logit(means[targets == 1]))[:5], 1).tolist(),
        **{
            name: {
                "threshold": value,
                "accuracy": float(((means >= value) == targets).mean()),
                "recall": float((means[targets == 1] >= value).mean()),
                "escapes": int((means[targets == 1] < value).sum()),
                "overkills": int((means[targets == 0] >= value).sum()),
                "accuracy_image": float(((test.scores >= value) == test.targets).mean()),
                "accuracy_equalised": float(((even >= value) == targets).mean()),
            }
            for name, value in thresholds.items()
        },
    }


def show(tag: str, found: Sequence[dict[str, Any]]) -> None:
    """Print one line per fold and the mean, at each threshold that could be had."""
    heads = ("AUC image", "AUC casting", "accuracy", "recall", "escapes", "overkills")
    heads += ("acc. image", "acc. equalised")
    for name in ("half", "held-out"):
        if any(name not in fold for fold in found):
            continue
        lines = [_figures_of(fold, name) for fold in found]
        table = Table("fold", *heads, "threshold", "s", title=f"{tag}: threshold {name}")
        for fold, line in zip(found, lines, strict=True):
            last = (f"{fold[name]['threshold']:.3f}", str(fold["seconds"]))
            table.add_row(str(fold["fold"]), *(f"{value:.4g}" for value in line), *last)
        means = (f"{np.mean(column):.4g}" for column in zip(*lines, strict=True))
        table.add_row("mean", *means, "", "")
        console.print(table)


def _figures_of(fold: dict[str, Any], name: str) -> list[float]:
    keys = ("accuracy", "recall", "escapes", "overkills", "accuracy_image", "accuracy_equalised")
    return [fold["auc_image"], fold["auc_casting"], *(fold[name][key] for key in keys)]


def across_folds(tag: str, trial: Trial, folds: Sequence[int]) -> None:
    """Print what all folds' test castings say together, each judged by the others' threshold."""
    sides, evened = [], []
    for fold in folds:
        found = np.load(LAB / f"{tag}-{fold}-{trial.seed}.npz")
        side = Scored(found["test_scores"], found["test_targets"], list(found["test_parts"]))
        sides.append(side)
        evened.append(replace(side, scores=found["equalised_scores"]))
    if len(sides) < 2:
        return
    whole = joined(sides)
    limits = [_threshold(joined([it for it in sides if it is not side]), trial) for side in sides]
    means, targets = whole.by_casting()
    console.print(
        f"{tag}: all folds together: AUC by casting {roc_auc(means, targets):.4f}, by image "
        f"{roc_auc(whole.scores, whole.targets):.4f}; at the threshold of the other folds "
        f"{_errors(sides, limits)} of {len(targets)} castings; with brightness equalised "
        f"{_errors(evened, limits)}",
        markup=False,
    )
    console.print(f"  good, highest logits: {np.round(np.sort(_logit(_good(whole)))[::-1], 1)}")
    console.print(f"  defects, lowest: {np.round(np.sort(_logit(_defective(whole)))[:8], 1)}")


def _errors(sides: Sequence[Scored], limits: Sequence[float]) -> str:
    judged = list(zip(sides, limits, strict=True))
    wrong = sum(int((_good(side) >= limit).sum()) for side, limit in judged)
    escapes = sum(int((_defective(side) < limit).sum()) for side, limit in judged)
    return f"{escapes} escapes and {wrong} overkills"


def joined(sides: Sequence[Scored]) -> Scored:
    """Return the images of several sides as one."""
    return Scored(
        np.concatenate([side.scores for side in sides]),
        np.concatenate([side.targets for side in sides]),
        [part for side in sides for part in side.parts],
    )


def _threshold(side: Scored, trial: Trial) -> float:
    cost = trial.params().cost
    return cost_threshold(side.scores, side.targets, side.parts, cost).value


def _good(side: Scored) -> Scores:
    means, targets = side.by_casting()
    return means[targets == 0]


def _defective(side: Scored) -> Scores:
    means, targets = side.by_casting()
    return means[targets == 1]


def _rows(params: Params, fold: int) -> list[Row]:
    rows = read_manifest(ROOT / "manifest" / "audit.csv")
    listed = remembered_sides(read_listing(ROOT / "data" / "castings.csv"))
    split = replace(params.split, protocol="kfold", folds=FOLDS, fold=fold)
    assigned, _ = split_rows(rows, split, params.seed, listed)
    return [row for row in assigned if row.split in ("train", "val", "calibration", "test")]


def _sides(stack: npt.NDArray[np.uint8], rows: Sequence[Row]) -> dict[str, Side]:
    learning = ("train", "val", "calibration")
    splits: dict[str, tuple[str, ...]] = {name: (name,) for name in (*learning, "test")}
    splits["fitted"] = learning
    groups = [np.flatnonzero([row.split in names for row in rows]) for names in splits.values()]
    return dict(zip(splits, sides_of(stack, rows, groups), strict=True))


def _logit(scores: Scores) -> Scores:
    clipped = np.clip(scores, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


if __name__ == "__main__":
    typer.run(main)
