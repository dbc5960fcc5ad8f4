"""What a training learns from and how its nets come about: one, or one more per cross-fit group."""

from __future__ import annotations

import copy
import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from zdm_ml.data.issues import UNDECODABLE, has_issue
from zdm_ml.data.manifest import Row, read_manifest
from zdm_ml.data.resident import resident_array
from zdm_ml.evaluation.castings import dealt, group
from zdm_ml.evaluation.scoring import score_rows
from zdm_ml.models.net import LoadedNet, NetSpec
from zdm_ml.pipeline.reporter import Reporter
from zdm_ml.pipeline.stages import Context, write_csv
from zdm_ml.recipes import Recipe
from zdm_ml.settings import Settings
from zdm_ml.training.crossfit import CrossFit, cross_fit
from zdm_ml.training.device import choose_device
from zdm_ml.training.frozen import FeatureCache
from zdm_ml.training.loop import Curve, EpochRecord, TrainResult, train
from zdm_ml.training.micro_batches import named_when_out_of_memory
from zdm_ml.training.parallel import Processes
from zdm_ml.training.sides import Images, Side

logger = logging.getLogger(__name__)

CROSSFIT_FILE = "crossfit.csv"
_COLUMNS = ("path", "part", "label", "score")


@dataclass(frozen=True)
class Material:
    """What a training sees: `rows` are those of `learn`; `judge` is None under cross-fitting.

    `every` are the rows of the array that both sides have their places in.
    """

    every: list[Row]
    rows: list[Row]
    learn: Side
    judge: Side | None


def read_material(context: Context, recipe: Recipe) -> Material:
    """Return the sides that a recipe trains and judges on, out of one array for all trainings."""
    rows = [
        row for row in read_manifest(context.paths["manifest"]) if not has_issue(row, UNDECODABLE)
    ]
    cache = context.settings.home / "arrays"
    images = resident_array(context.paths["castings"], rows, recipe.input_size, cache)
    learning = ("train", "val", "calibration") if recipe.crossfit else ("train",)
    learn_rows, learn = _side(images, rows, learning)
    _, judge = _side(images, rows, ("val",))
    logger.info("%d images to learn from at %d px", len(learn), recipe.input_size)
    return Material(rows, learn_rows, learn, None if recipe.crossfit else judge)


def fit(
    context: Context,
    name: str,
    net: nn.Module,
    spec: NetSpec,
    recipe: Recipe,
    material: Material,
    checkpoints: Path,
    reporter: Reporter,
) -> tuple[TrainResult, CrossFit | None]:
    """Train `net`; with a recipe that cross-fits, first the nets that score what they never saw.

    `spec` says how pictures are looked at.
    """
    processes = processes_of(context.settings)

    def run(number: int, fresh: nn.Module, learn: Side, judge: Side | Curve) -> TrainResult:
        reporter.begin(number)
        return train(
            name,
            fresh,
            learn,
            judge,
            recipe=recipe,
            precision=context.params.train.precision,
            seed=context.params.seed,
            device=training_device(context, processes),
            checkpoint=checkpoints / f"{number}.pt",
            features=FeatureCache(
                context.settings.home / "features",
                context.params.model(name).transfer,
                context.params.train.views,
            ),
            processes=processes,
            on_epoch=reporter.epoch,
            on_step=reporter.step,
        )

    def held_out(number: int, learn: Side, judge: Side) -> tuple[nn.Module, list[EpochRecord]]:
        fresh = copy.deepcopy(net)
        return fresh, run(number, fresh, learn, judge).history

    def score(fresh: nn.Module, side: Side) -> npt.NDArray[np.float64]:
        # From files, as stage evaluate and the server do: the array's pictures are resized already.
        device = training_device(context, processes)
        with named_when_out_of_memory(name, context.params.evaluate.batch_size):
            return score_rows(
                LoadedNet(spec, fresh.eval(), device),
                [material.every[place] for place in side.places],
                context.paths["castings"],
                batch_size=context.params.evaluate.batch_size,
                max_pixels=context.params.audit.max_pixels,
            )

    if material.judge is not None:
        return run(0, net, material.learn, material.judge), None
    targets = np.array([row.target for row in material.rows], dtype=np.int64)
    families = group(targets, [row.family for row in material.rows])
    groups = dealt(families, recipe.crossfit)[families.place]
    crossfit = cross_fit(material.learn, groups, held_out, score)
    return run(recipe.crossfit, net, material.learn, crossfit.curve), crossfit


def processes_of(settings: Settings) -> Processes:
    """Return this process among those that train together."""
    return Processes(settings.rank, settings.world_size, settings.local_rank)


def training_device(context: Context, processes: Processes) -> torch.device:
    """Return the device that params.yaml names, or this process's own where there are several."""
    return processes.device(choose_device(context.params.train.device))


def write_scores(path: Path, rows: Sequence[Row], scores: npt.NDArray[np.float64]) -> None:
    """Write cross-fitted scores as CSV."""
    pairs = zip(rows, scores, strict=True)
    write_csv(path, _COLUMNS, ((r.path, r.part, r.label, repr(float(s))) for r, s in pairs))


def read_scores(path: Path) -> dict[str, float] | None:
    """Return cross-fitted scores by image path; None for a net without."""
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        return {row["path"]: float(row["score"]) for row in csv.DictReader(file)}


def _side(images: Images, rows: Sequence[Row], splits: Sequence[str]) -> tuple[list[Row], Side]:
    places = np.array([at for at, row in enumerate(rows) if row.split in splits], dtype=np.int64)
    chosen = [rows[at] for at in places]
    castings = np.unique([row.part for row in rows], return_inverse=True)[1]
    targets = np.array([row.target for row in chosen], dtype=np.int64)
    return chosen, Side(images, places, targets, castings[places])
