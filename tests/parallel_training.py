"""What one of several processes does in the tests of training together; started by spawning."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recipes import PLAIN, RICH
from torch import nn

from zdm_ml.errors import TrainingError
from zdm_ml.recipes import Recipe
from zdm_ml.training.loop import EpochRecord, TrainResult, train
from zdm_ml.training.parallel import ALONE, Processes
from zdm_ml.training.sides import Side, make_side

CPU = torch.device("cpu")
# Shares differ in batches of 8, 8, 8, 8 and 5; of 35 images the last 3 are too few to share.
RECIPES = {"reference": (PLAIN, 37), "modern": (replace(RICH, images_per_epoch=35), 37)}
DIES = 9


def noise(count: int, seed: int, size: int = 16) -> Side:
    """Noise, with a dark spot where the target is 1."""
    rng = np.random.default_rng(seed)
    targets = (np.arange(count) % 2).astype(np.int64)
    images = rng.integers(120, 200, (count, size, size), dtype=np.uint8)
    images[targets == 1, 6:10, 6:10] = 0
    return make_side(images, targets, np.arange(count) // 6 * 2 + targets)


def small(*, normed: bool = False, dropout: float = 0.0) -> nn.Module:
    """Return a net with the same weights in every process."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8) if normed else nn.Identity(),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8, 2),
    )


def run(
    net: nn.Module, recipe: Recipe, count: int, processes: Processes = ALONE, **options: Any
) -> TrainResult:
    """Train a net on noise."""
    settings: dict[str, Any] = {"precision": "fp32", "seed": 5, "device": CPU, **options}
    sides = (noise(count, 1), noise(10, 2))
    return train("small", net, *sides, recipe=recipe, processes=processes, **settings)


def work(rank: int, count: int, folder: Path) -> None:
    """Train several nets together, then one that the last process leaves by dying."""
    torch.set_num_threads(1)
    processes = Processes(rank, count, rank)
    with processes.joined(CPU):
        found = {
            "nets": {name: _trained(processes, name) for name in RECIPES},
            "normed": _normed(processes),
            "resumed": _resumed(processes, folder),
            "disagreement": _disagreement(processes),
        }
    torch.save(found, folder / f"{rank}.pt")
    try:
        with processes.joined(CPU):
            _abandoned(processes)
    except TrainingError as error:
        (folder / f"{rank}.txt").write_text(str(error))


def _abandoned(processes: Processes) -> None:
    """Train until a process dies in the second epoch."""
    steps = 0

    def die(module: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
        nonlocal steps
        steps += module.training
        if not processes.leads and steps == 7:
            os._exit(DIES)

    net = small()
    net.register_forward_pre_hook(die)
    run(net, PLAIN, 37, processes)


def _trained(processes: Processes, name: str) -> dict[str, Any]:
    recipe, count = RECIPES[name]
    net = small()
    epochs: list[EpochRecord] = []
    steps: list[tuple[int, int, int]] = []
    result = run(
        net,
        recipe,
        count,
        processes,
        on_epoch=epochs.append,
        on_step=lambda *step: steps.append(step),
    )
    return {
        "weights": net.state_dict(),
        "history": [asdict(record) for record in result.history],
        "epochs": len(epochs),
        "steps": steps,
    }


def _normed(processes: Processes) -> dict[str, torch.Tensor]:
    net = small(normed=True, dropout=0.5)
    run(net, PLAIN, 37, processes)
    return net.state_dict()


def _resumed(processes: Processes, folder: Path) -> dict[str, Any]:
    """Train once, and once more from the checkpoint that the first epoch left."""
    options = {"recipe": replace(PLAIN, averaging=0.9), "count": 37, "processes": processes}
    file, first = folder / "last.pt", folder / "first.pt"

    def keep(record: EpochRecord) -> None:
        if record.epoch == 1:
            shutil.copyfile(file, first)

    whole, resumed = small(dropout=0.5), small(dropout=0.5)
    run(whole, **options, checkpoint=file, on_epoch=keep)
    result = run(resumed, **options, checkpoint=first)
    return {
        "whole": whole.state_dict(),
        "resumed": resumed.state_dict(),
        "after": result.resumed_after,
    }


def _disagreement(processes: Processes) -> str:
    try:
        processes.agree("small", {"epochs": processes.rank}, CPU)
    except TrainingError as error:
        return str(error)
    return ""
