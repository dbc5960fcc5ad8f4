"""Training steps per second by memory layout and precision, to decide what the engine uses.

`python benchmarks/layouts.py --models luna,resnet18` prints images per second of a forward and
backward pass with an Adam step, at the input size of params.yaml and batch 16.
"""

from __future__ import annotations

import statistics
import time
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from zdm_ml.models import zoo
from zdm_ml.params import load_params
from zdm_ml.training.device import Precision, autocast, choose_device, repeatable, seed_everything

ROOT = Path(__file__).resolve().parents[1]
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
STEPS = 4

console = Console(width=100, highlight=False)


def main(
    models: Annotated[str, typer.Option(help="Comma-separated; all by default.")] = "",
    device: Annotated[str, typer.Option()] = "auto",
) -> None:
    """Measure each model under each layout and precision."""
    params, place = load_params(ROOT / "params.yaml"), choose_device(device)
    heads = [f"{layout} {precision}" for layout, precision in product(LAYOUTS, PRECISIONS)]
    table = Table("model", "px", *heads, title="training, images per second")
    for name in models.split(",") if models else params.models:
        size = params.model(name).input_size
        speeds = [
            images_per_second(
                name, size, params.recipe(name, scratch=True).batch_size, layout, precision, place
            )
            for layout, precision in product(LAYOUTS.values(), PRECISIONS)
        ]
        table.add_row(name, str(size), *(f"{speed:.1f}" for speed in speeds))
    console.print(table)


def images_per_second(
    name: str,
    size: int,
    batch: int,
    layout: torch.memory_format,
    precision: Precision,
    device: torch.device,
) -> float:
    """Return the median over a few steps."""
    seed_everything(0)
    net = zoo.build(name, size).to(device=device, memory_format=layout)
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    images = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=layout)
    targets = torch.randint(0, 2, (batch,), device=device)
    seconds = []
    with repeatable(device):
        for _ in range(STEPS + 1):
            started = time.perf_counter()
            optimizer.zero_grad()
            with autocast(device, precision):
                logits = net(images)
            functional.cross_entropy(logits.float(), targets).backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - started)
    return batch / statistics.median(seconds[1:])


if __name__ == "__main__":
    typer.run(main)
