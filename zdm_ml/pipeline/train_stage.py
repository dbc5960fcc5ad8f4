"""The stage `train`: one model from images to a folder of weights, resumable and tracked."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from torch import nn

from zdm_ml.data.manifest import CLASSES
from zdm_ml.evaluation.curves import learning_curve
from zdm_ml.files import sha256_file, sha256_json, write_bytes
from zdm_ml.models import zoo
from zdm_ml.models.net import NetSpec, save_net
from zdm_ml.models.transfer import apply_transfer
from zdm_ml.models.weights import initialise
from zdm_ml.pipeline.dvcfile import read_pipeline
from zdm_ml.pipeline.fitting import (
    CROSSFIT_FILE,
    fit,
    processes_of,
    read_material,
    training_device,
    write_scores,
)
from zdm_ml.pipeline.locks import fence
from zdm_ml.pipeline.reporter import Reporter, Show
from zdm_ml.pipeline.retraining import model_run
from zdm_ml.pipeline.stages import Context, write_csv
from zdm_ml.recipes import Recipe
from zdm_ml.training.device import seed_everything
from zdm_ml.training.estimate import Job, estimate_seconds
from zdm_ml.training.loop import CURVE_IMAGES, TrainResult

logger = logging.getLogger(__name__)

DECISION_FILE = "decision.json"
HISTORY_COLUMNS = ("epoch", "train_loss", "val_loss", "val_accuracy", "learning_rate")


def train(context: Context, name: str, show: Show) -> TrainResult:
    """Train one model and write its folder and history to the outs that dvc.yaml names.

    A checkpoint per epoch lies outside the outs, keyed by data, code and parameters: a training
    that was killed goes on at its epoch, and two of the same cannot run at once. Images that are
    not those of the data version raise `DataError` before the first epoch.
    """
    history = context.paths["history"] / f"{name}.csv"
    return train_into(context, name, context.paths["models"] / name, history, show)


def train_into(context: Context, name: str, folder: Path, history: Path, show: Show) -> TrainResult:
    """Train one model as `train` does, and write net and history to paths of the caller.

    Where several processes train together, each calls this; the leading one alone holds the lock,
    records in MLflow and writes.
    """
    processes = processes_of(context.settings)
    kept = context.settings.home / "checkpoints" / checkpoint_key(context, name)
    lock = fence(kept.with_suffix(".lock")) if processes.leads else nullcontext()
    with processes.joined(training_device(context, processes)), lock:
        with processes.lead_first():
            if processes.leads:
                context.verified_castings()
            net, spec, recipe = _initial_net(context, name)
        with model_run(context, name, spec.init, asdict(recipe)) as run:
            nets = recipe.crossfit + 1
            reporter = Reporter(context, name, recipe.epochs, nets, run, show)
            with processes.lead_first():
                material = read_material(context, recipe)
            result, crossfit = fit(context, name, net, spec, recipe, material, kept, reporter)
            if not processes.leads:
                return result
            # A folder that is trained into again must not keep what other nets were judged by.
            (folder / DECISION_FILE).unlink(missing_ok=True)
            spec = save_net(folder, net, spec)
            (folder / CROSSFIT_FILE).unlink(missing_ok=True)
            if crossfit is not None:
                write_scores(folder / CROSSFIT_FILE, material.rows, crossfit.scores)
            picture = _write_history(history, name, result)
            run.finish(
                model_digest=spec.digest, history=history, artifacts={picture: "learning_curve"}
            )
        # While the lock is held: whoever waits for it begins with checkpoints of its own.
        shutil.rmtree(kept, ignore_errors=True)
    return result


def _write_history(path: Path, name: str, result: TrainResult) -> Path:
    """Write the epochs as CSV and as a picture beside it; return the picture's path."""
    write_csv(
        path,
        HISTORY_COLUMNS,
        ([getattr(epoch, key) for key in HISTORY_COLUMNS] for epoch in result.history),
    )
    picture = path.with_suffix(".png")
    write_bytes(picture, learning_curve(name, result.history, result.best_epoch))
    return picture


def _initial_net(context: Context, name: str) -> tuple[nn.Module, NetSpec, Recipe]:
    """Return the net before its first step: official or random weights, parts of it frozen."""
    params, model = context.params, context.params.model(name)
    seed_everything(params.seed)
    form = params.recipe(name, scratch=True)
    net = zoo.build(name, form.input_size, len(CLASSES), form.name)
    init = initialise(
        name,
        net,
        form.input_size,
        params.train.weights,
        cache=context.settings.home / "weights",
        mirror=context.settings.weights_dir,
    )
    if init.kind == "scratch" and model.transfer != "full":
        logger.warning("%s: transfer %s freezes random weights", name, model.transfer)
    trainable = apply_transfer(name, net, model.transfer)
    logger.info("%s: starts %s, %s trainable parameters", name, init.kind, f"{trainable:,}")
    recipe = params.recipe(name, scratch=init.kind == "scratch")
    spec = NetSpec(
        model_name=name,
        classes=CLASSES,
        input_size=recipe.input_size,
        mean=recipe.mean,
        std=recipe.std,
        init=init.kind,
        weights_file=init.file,
        transfer=model.transfer,
        profile=params.profile,
        recipe=recipe.name,
        standardise=recipe.standardise,
    )
    return net, spec, recipe


def estimate_hours(context: Context, names: Collection[str]) -> tuple[float, float]:
    """Return how long trainings take on this CPU: from pretrained weights, and from scratch."""
    params = context.params
    images, val_images = len(context.rows("train")), len(context.rows("val"))
    epochs = {
        name: (
            params.recipe(name, scratch=zoo.architecture(name).weights is None).epochs,
            params.recipe(name, scratch=True).epochs,
        )
        for name in names
    }
    jobs = [
        _job(params.recipe(name, scratch=True), name, model.transfer, images, val_images)
        for name, model in params.models.items()
        if name in names
    ]
    seconds = estimate_seconds(jobs)
    pretrained, scratch = (
        sum(seconds[name] * epochs[name][start] for name in seconds) / 3600 for start in (0, 1)
    )
    return pretrained, scratch


def _job(recipe: Recipe, name: str, transfer: str, images: int, val_images: int) -> Job:
    """Return one epoch of each net of a training."""
    shown = recipe.images_per_epoch if recipe.sampling == "castings" else None
    judged = val_images if recipe.keep == "best" else min(val_images, CURVE_IMAGES)
    nets = recipe.crossfit + 1
    size = (recipe.input_size, transfer, nets, shown or images, judged, recipe.batch_size)
    return Job(name, *size, recipe.name)


def checkpoint_key(context: Context, name: str) -> str:
    """Return the key of a training: its data, its code, its parameters."""
    params = context.params
    stage = read_pipeline(context.root).stage(f"train@{name}")
    code = {
        path.relative_to(context.root).as_posix(): sha256_file(path)
        for dep in stage.deps
        if dep.endswith(".py") or (context.root / dep / "__init__.py").is_file()
        for path in _python_files(context.root / dep)
    }
    content = {
        "code": code,
        "data": sha256_file(context.paths["manifest"]),
        "params": {key: params.raw[key] for key in ("profile", "seed", "train")},
        "recipe": params.raw["recipes"][params.train.recipe],
        "model": params.raw["models"][name],
    }
    return f"{name}-{sha256_json(content)[:16]}"


def _python_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py"))
