"""Figures of arithmetic: how much of what a large matrix product reaches a training reaches."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

import torch
from bench import Bench
from table import Line, compare, finish
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from trainings import fresh_net

from zdm_ml.data.manifest import CLASSES
from zdm_ml.models import zoo
from zdm_ml.models.zoo import architecture
from zdm_ml.recipes import Recipe
from zdm_ml.training.device import choose_precision
from zdm_ml.training.loop import Curve, EpochRecord, train

CPU_MODELS = ("luna", "resnet18", "vit_b_16")
CPU_GOAL = 0.75
CUDA_GOALS = {"vit_b_16": 0.45, "dino_vits8": 0.45, "resnet18": 0.25}
CUDA_GOAL = 0.15
BATCHES = {"luna": 8, "vit_b_16": 1}
"""Per epoch on a CPU, where a ViT's takes many seconds."""
PRODUCTS = 3
"""Matrix products between two epochs, the fastest of which counts."""

GIGA = 1e9


def arithmetic(bench: Bench) -> list[Line]:
    """FLOP/s of a training, feeding included, over those of a matrix product between its epochs.

    The product is in fp32 on a CPU, in bf16 on a GPU; the training in what the engine chooses.
    """
    models = bench.scaled(toy=("luna",), cpu=CPU_MODELS, cuda=zoo.MODEL_NAMES)
    return [_arithmetic(bench, name) for name in models]


def _arithmetic(bench: Bench, name: str) -> Line:
    recipe = bench.recipe(name, bench.params().train.recipe)
    batches = bench.scaled(toy=1, cpu=BATCHES.get(name, 2), cuda=32)
    count, epochs = batches * recipe.batch_size, bench.repeats + 1
    recipe = replace(recipe, epochs=epochs, images_per_epoch=count)
    (learn,) = bench.sides(recipe.input_size, bench.drawn(count, "train"))
    arithmetic, pairs = training_flops(name, recipe), list[tuple[float, float]]()

    def look(record: EpochRecord) -> None:
        speed = record.images_per_second * arithmetic / GIGA
        pairs.append((speed, max(_product(bench) for _ in range(PRODUCTS))))

    precision = bench.params().train.precision
    train(
        name,
        fresh_net(name, recipe, 0),
        learn,
        Curve([0.0] * epochs, [0.0] * epochs),
        recipe=recipe,
        precision=precision,
        seed=0,
        device=bench.device,
        on_epoch=look,
    )
    chosen = choose_precision(precision, bench.device, gains=architecture(name).gains_bf16)
    kind = "bf16" if bench.device.type == "cuda" else "fp32"
    shown = median(speed for speed, _ in pairs[1:]) * GIGA / arithmetic
    return compare(
        f"FLOP/s of training over a matrix product's: {name}",
        pairs[1:],  # the first epoch warms up
        bench.goal(cpu=CPU_GOAL, cuda=CUDA_GOALS.get(name, CUDA_GOAL)),
        bench.label,
        unit="GFLOP/s",
        times=False,
        note=f"recipe {recipe.name}, {recipe.input_size} px, batch {recipe.batch_size}, {chosen}: "
        f"{shown:.1f} images/s of {arithmetic / GIGA:.2f} GFLOP; product in {kind}",
    )


def training_flops(name: str, recipe: Recipe) -> int:
    """Return the operations of forward and backward for one image; a multiply-add is two.

    torch counts the weight gradient of grouped convolutions as if they had no groups: nothing
    counts more than thrice its forward pass.
    """
    images = 2  # batch norm on a single pixel needs two
    with torch.device("meta"):
        net = zoo.build(name, recipe.input_size, len(CLASSES), recipe.name).train()
        pixels = torch.empty(images, 3, recipe.input_size, recipe.input_size)
        targets = torch.zeros(images, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            loss = functional.cross_entropy(net(pixels), targets)
            forward = counter.get_total_flops()
            loss.backward()
    return int(min(counter.get_total_flops(), 3 * forward)) // images


def _product(bench: Bench) -> float:
    """Return the GFLOP/s of one large matrix product."""
    side = bench.scaled(toy=256, cpu=2048, cuda=8192)
    dtype = torch.bfloat16 if bench.device.type == "cuda" else torch.float32
    one, other = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))
    finish()
    started = time.perf_counter()
    torch.mm(one, other)
    finish()
    return 2 * side**3 / (time.perf_counter() - started) / GIGA
