"""The stage `train`: one model from images to a folder of weights, resumable and tracked."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import nn

from zdm_ml.data.images import read_stack
from zdm_ml.data.manifest import CLASSES
from zdm_ml.files import sha256_file, sha256_json, write_json
from zdm_ml.models import zoo
from zdm_ml.models.net import NetSpec, save_net
from zdm_ml.models.transfer import apply_transfer
from zdm_ml.models.weights import initialise
from zdm_ml.pipeline.dvcfile import read_pipeline
from zdm_ml.pipeline.locks import fence
from zdm_ml.pipeline.retraining import model_run
from zdm_ml.pipeline.stages import Context, write_csv
from zdm_ml.registry.tracking import ModelRun
from zdm_ml.training.device import choose_device, seed_everything
from zdm_ml.training.estimate import Job, estimate_seconds
from zdm_ml.training.loop import EpochRecord, TrainResult
from zdm_ml.training.loop import train as train_loop

logger = logging.getLogger(__name__)

HISTORY_COLUMNS = ("epoch", "train_loss", "val_loss", "val_accuracy", "learning_rate")

Show = Callable[[int, int, int, int], None]
"""Called with epoch, epochs, images done and images in the epoch."""


def train(context: Context, name: str, show: Show) -> TrainResult:
    """Train one model and write its folder and history.

    A checkpoint per epoch lies outside the outs, keyed by data, code and parameters: a training
    that was killed goes on at its epoch, and two of the same cannot run at once. Images that are
    not those of the data version raise `DataError` before the first epoch.
    """
    folder = context.settings.home / "checkpoints" / checkpoint_key(context, name)
    with fence(folder.with_suffix(".lock")):
        context.verified_castings()
        net, spec = _initial_net(context, name)
        recipe = context.params.recipe(name, scratch=spec.init == "scratch")
        with model_run(context, name, spec.init, asdict(recipe)) as run:
            reporter = Reporter(context, name, recipe.epochs, run, show)
            result = train_loop(
                name,
                net,
                *_arrays(context, "train", spec.input_size),
                *_arrays(context, "val", spec.input_size),
                recipe=recipe,
                params=context.params.train,
                seed=context.params.seed,
                device=choose_device(context.params.train.device),
                checkpoint=folder / "last.pt",
                on_epoch=reporter.epoch,
                on_step=reporter.step,
            )
            spec = save_net(context.paths["models"] / name, net, spec)
            history = context.paths["history"] / f"{name}.csv"
            write_csv(
                history,
                HISTORY_COLUMNS,
                ([getattr(epoch, key) for key in HISTORY_COLUMNS] for epoch in result.history),
            )
            run.finish(model_digest=spec.digest, history=history)
    shutil.rmtree(folder, ignore_errors=True)
    return result


def _initial_net(context: Context, name: str) -> tuple[nn.Module, NetSpec]:
    """Return the net before its first step: official or random weights, parts of it frozen."""
    params, model = context.params, context.params.model(name)
    seed_everything(params.seed)
    net = zoo.build(name, model.input_size, len(CLASSES))
    init = initialise(
        name,
        net,
        model.input_size,
        params.train.weights,
        cache=context.settings.home / "weights",
        mirror=context.settings.weights_dir,
    )
    if init.kind == "scratch" and model.transfer != "full":
        logger.warning("%s: transfer %s freezes random weights", name, model.transfer)
    trainable = apply_transfer(name, net, model.transfer)
    logger.info("%s: starts %s, %s trainable parameters", name, init.kind, f"{trainable:,}")
    spec = NetSpec(
        model_name=name,
        classes=CLASSES,
        input_size=model.input_size,
        mean=params.train.mean,
        std=params.train.std,
        init=init.kind,
        weights_file=init.file,
        transfer=model.transfer,
        profile=params.profile,
    )
    return net, spec


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
        Job(name, model.input_size, model.transfer, 1, images, val_images, params.train.batch_size)
        for name, model in params.models.items()
        if name in names
    ]
    seconds = estimate_seconds(jobs)
    pretrained, scratch = (
        sum(seconds[name] * epochs[name][start] for name in seconds) / 3600 for start in (0, 1)
    )
    return pretrained, scratch


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
        "model": params.raw["models"][name],
    }
    return f"{name}-{sha256_json(content)[:16]}"


def _python_files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def _arrays(context: Context, split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one side's uint8 images [N, size, size] and int64 targets [N]."""
    rows = context.rows(split)
    images = read_stack(context.paths["castings"], [row.path for row in rows], size)
    logger.info("%d %s images at %d px", len(rows), split, size)
    return images, np.array([row.target for row in rows], dtype=np.int64)


class Reporter:
    """Tells everyone who follows a training: the screen or log, MLflow, and `zdm run`.

    The file under `progress/` is for followers of an orchestrated run; at a desk there is none.
    """

    def __init__(
        self, context: Context, model: str, epochs: int, run: ModelRun, show: Show
    ) -> None:
        run_id = context.settings.run_id
        self.path = context.settings.home / "progress" / f"{run_id}.json" if run_id else None
        self.model, self.epochs, self.run, self.show = model, epochs, run, show
        self.last: EpochRecord | None = None

    def step(self, done: int, total: int, epoch: int) -> None:
        """Tell the share of the epoch that is done, counted in images."""
        self.show(epoch, self.epochs, done, total)
        self._write(epoch, (epoch - 1 + done / max(1, total)) / self.epochs)

    def epoch(self, record: EpochRecord) -> None:
        """Tell an epoch's figures."""
        self.last = record
        self.run.epoch(record)
        self._write(record.epoch, record.epoch / self.epochs)
        logger.info(
            "%s: epoch %d/%d  train loss %.4f  val loss %.4f  val accuracy %.4f  %.0f images/s",
            self.model,
            record.epoch,
            self.epochs,
            record.train_loss,
            record.val_loss,
            record.val_accuracy,
            record.images_per_second,
        )

    def _write(self, epoch: int, share: float) -> None:
        if self.path is None:
            return
        content = {
            "stage": f"train@{self.model}",
            "model": self.model,
            "epoch": epoch,
            "epochs": self.epochs,
            "percent": round(100 * share, 1),
            "images_per_second": round(self.last.images_per_second, 1) if self.last else None,
            "loss": round(self.last.val_loss, 4) if self.last else None,
            "updated": time.time(),
        }
        write_json(self.path, content)
