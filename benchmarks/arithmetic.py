"""Figures of arithmetic: how much of what a large matrix product reaches a training reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import torch
from bench import Bench
from table import Line, compare, seconds
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from trainings import fresh_net, precision_of

from zdm_ml.data.manifest import CLASSES
from zdm_ml.models import zoo
from zdm_ml.recipes import Recipe
from zdm_ml.training.device import Precision
from zdm_ml.training.loop import Curve, EpochRecord, train

CPU_MODELS = ("luna", "resnet18", "vit_b_16")
CPU_GOAL = 0.75
CUDA_GOALS = {"vit_b_16": 0.45, "dino_vits8": 0.45, "resnet18": 0.25}
CUDA_GOAL = 0.15
BATCHES = {"luna": 8, "vit_b_16": 1}
"""Per epoch on a CPU, where a ViT's takes many seconds."""
PRODUCTS = 3
"""Matrix products of a kind between two epochs, the fastest of which counts."""
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

GIGA = 1e9


def arithmetic(bench: Bench) -> list[Line]:
    """FLOP/s of a training, feeding included, over those of a matrix product between its epochs.

    The product is in fp32 on a CPU, in bf16 on a GPU; the training in what the engine chooses.
    Where that is bf16 on a CPU, the note has its share of a bf16 product, too.
    """
    models = bench.scaled(toy=("luna",), cpu=CPU_MODELS, cuda=zoo.MODEL_NAMES)
    return [_arithmetic(bench, name) for name in models]


def _arithmetic(bench: Bench, name: str) -> Line:
    recipe, chosen = bench.recipe(name, bench.params().train.recipe), precision_of(bench)
    kinds = _compared(bench, chosen)
    operations = training_flops(name, recipe)
    rates, *products = zip(*_epochs(bench, name, recipe, kinds), strict=True)
    speeds = [rate * operations / GIGA for rate in rates]
    note = (
        f"recipe {recipe.name}, {recipe.input_size} px, batch {recipe.batch_size}, {chosen}: "
        f"{median(rates):.1f} images/s of {operations / GIGA:.2f} GFLOP; product in {kinds[0]}"
    )
    for kind, others in zip(kinds[1:], products[1:], strict=True):
        share = median(ours / other for ours, other in zip(speeds, others, strict=True))
        note += f"; {share:.2f} of a {kind} product's {median(others):.0f} GFLOP/s"
    return compare(
        f"FLOP/s of training over a matrix product's: {name}",
        list(zip(speeds, products[0], strict=True)),
        bench.goal(cpu=CPU_GOAL, cuda=CUDA_GOALS.get(name, CUDA_GOAL)),
        bench.label,
        unit="GFLOP/s",
        times=False,
        note=note,
    )


def _compared(bench: Bench, chosen: Precision) -> list[Precision]:
    """Return the kinds of product to measure; the goal is set against the first."""
    if bench.device.type == "cuda":
        return ["bf16"]
    return ["fp32"] if chosen == "fp32" else ["fp32", chosen]


def _epochs(
    bench: Bench, name: str, recipe: Recipe, kinds: Sequence[Precision]
) -> list[tuple[float, ...]]:
    """Train; return each epoch's images per second and the GFLOP/s of products after it."""
    batches = bench.scaled(toy=1, cpu=BATCHES.get(name, 2), cuda=32)
    count, epochs = batches * recipe.batch_size, bench.repeats + 1
    (learn,) = bench.sides(recipe.input_size, bench.drawn(count, "train"))
    found: list[tuple[float, ...]] = []

    def look(record: EpochRecord) -> None:
        found.append((record.images_per_second, *(_product(bench, kind) for kind in kinds)))

    train(
        name,
        fresh_net(name, recipe, 0),
        learn,
        Curve([0.0] * epochs, [0.0] * epochs),
        recipe=replace(recipe, epochs=epochs, images_per_epoch=count),
        precision=bench.params().train.precision,
        seed=0,
        device=bench.device,
        on_epoch=look,
    )
    return found[1:]  # the first epoch warms up


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


def _product(bench: Bench, kind: Precision) -> float:
    """Return the GFLOP/s of the fastest of a few large matrix products."""
    side = bench.scaled(toy=256, cpu=2048, cuda=8192)
    one, other = (
        torch.randn(side, side, device=bench.device, dtype=DTYPES[kind]) for _ in range(2)
    )
    fastest = min(seconds(lambda: torch.mm(one, other)) for _ in range(PRODUCTS))
    return 2 * side**3 / fastest / GIGA
