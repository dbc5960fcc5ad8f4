"""Training steps per second by memory layout and precision, to decide what the engine uses.

`python benchmarks/layouts.py --models luna,resnet18` prints images per second of a forward and
backward pass with an optimizer step, at the batch and input size of a recipe. `--compile` adds
columns with the net under torch.compile, which takes minutes for each before the first step.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from table import seconds
from torch import nn
from torch.nn import functional

from zdm_ml.data.manifest import CLASSES
from zdm_ml.models import zoo
from zdm_ml.models.scoring import to_input
from zdm_ml.params import load_params
from zdm_ml.recipes import Recipe
from zdm_ml.training.device import Precision, autocast, choose_device, repeatable, seed_everything
from zdm_ml.training.optimization import make_optimizer

ROOT = Path(__file__).resolve().parents[1]
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
STEPS = 4

console = Console(width=150, highlight=False)


@dataclass(frozen=True)
class Way:
    """One way to run a net."""

    layout: str
    precision: Precision
    compiled: bool

    def __str__(self) -> str:
        return f"{self.layout} {self.precision}{' compiled' if self.compiled else ''}"


def main(
    models: Annotated[str, typer.Option(help="Comma-separated; all by default.")] = "",
    recipe: Annotated[str, typer.Option(help="modern or reference; params.yaml's.")] = "",
    device: Annotated[str, typer.Option()] = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="Also under torch.compile.")] = False,
) -> None:
    """Measure each model under each layout and precision."""
    params, place = load_params(ROOT / "params.yaml", recipe=recipe or None), choose_device(device)
    ways = [
        Way(layout, precision, on)
        for on, layout, precision in product((False, True)[: 1 + compiled], LAYOUTS, PRECISIONS)
    ]
    title = f"training with recipe {params.train.recipe}, images per second"
    table = Table("model", "px", "batch", *map(str, ways), title=title)
    for name in models.split(",") if models else params.models:
        chosen = params.recipe(name, scratch=True)
        speeds = [images_per_second(name, chosen, way, place) for way in ways]
        shape = (str(chosen.input_size), str(chosen.batch_size))
        table.add_row(name, *shape, *(f"{speed:.1f}" for speed in speeds))
    console.print(table)


def images_per_second(name: str, recipe: Recipe, way: Way, device: torch.device) -> float:
    """Return the median over a few steps."""
    seed_everything(0)
    net: nn.Module = zoo.build(name, recipe.input_size, len(CLASSES), recipe.name)
    net.to(device=device, memory_format=LAYOUTS[way.layout])
    net.train()
    shown = torch.compile(net) if way.compiled else net
    step = partial(_step, shown, make_optimizer(net, recipe), _batch(recipe, device), way.precision)
    with repeatable(device):
        lasted = [seconds(step) for _ in range(STEPS + 1)]
    return recipe.batch_size / statistics.median(lasted[1:])


def _batch(recipe: Recipe, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what the engine gives a net: three channels that are views of one, and targets."""
    side, count = recipe.input_size, recipe.batch_size
    grey = torch.randn(count, 1, side, side, device=device)
    targets = torch.randint(0, len(CLASSES), (count,), device=device)
    return to_input(grey, standardise=recipe.standardise), targets


def _step(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[torch.Tensor, torch.Tensor],
    precision: Precision,
) -> None:
    images, targets = batch
    optimizer.zero_grad(set_to_none=True)
    with autocast(images.device, precision):
        logits = net(images)
    functional.cross_entropy(logits.float(), targets).backward()
    optimizer.step()


if __name__ == "__main__":
    typer.run(main)
