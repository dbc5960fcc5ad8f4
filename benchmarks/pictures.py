"""Figures of pictures: decoding them once, and augmenting them for every epoch."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench import Bench
from PIL import Image
from reference_loop import Castings, ImageFile, train_transform
from table import Line, compare, in_turns, seconds, spread
from torchvision import transforms

from zdm_ml.data.augment import Augmenter
from zdm_ml.data.images import read_stack
from zdm_ml.data.manifest import Row
from zdm_ml.data.pasting import PATCHES, draw_patches
from zdm_ml.data.resident import resident_array
from zdm_ml.models.scoring import to_input
from zdm_ml.recipes import Recipe, RecipeName
from zdm_ml.training.batches import Feed
from zdm_ml.training.device_feed import DeviceAugmenter, DeviceFeed
from zdm_ml.training.device_images import DeviceImages
from zdm_ml.training.estimate import one_thread
from zdm_ml.training.sides import Side

GOALS = {300: 7.0, 224: 14.0}
"""On a CPU, by size in pixels."""

FAITHFUL = 0.85
DECODED_SIZE = 300

Epoch = Callable[[int], object]
"""Makes all pictures of an epoch."""


def augmentation(bench: Bench) -> list[Line]:
    """Pictures per second, from where each side starts an epoch to a float tensor.

    The reference starts at files and has one core; ours starts at the resident array and has one
    core, too, or the GPU.
    """
    return [_augmentation(bench, size) for size in GOALS]


def _augmentation(bench: Bench, size: int) -> Line:
    rows = bench.drawn(bench.scaled(toy=8, cpu=192, cuda=512), "train")
    recipe, modern = _recipe(bench, size, "reference"), _recipe(bench, size, "modern")
    (side,) = bench.sides(size, rows)
    files = Castings(bench.files(rows), train_transform(recipe))
    clock = _clock(bench)
    with (
        one_thread(),
        _engine(bench, side, recipe) as ours,
        _engine(bench, side, modern) as richer,
    ):
        rate = partial(_rate, images=len(rows), clock=clock)
        for work in (ours, richer, partial(_all, files)):
            work(0)
        pairs = in_turns(partial(rate, ours), partial(rate, partial(_all, files)), bench.repeats)
        others = [rate(richer, repeat) for repeat in range(1, bench.repeats + 1)]
    note = f"with the augmentation of recipe modern: {statistics.median(others):.0f}"
    unit = "images/s per core"
    if bench.device.type == "cuda":  # a whole GPU by wall time
        unit, note = "images/s", f"{note}; reference: one core"
    goal = bench.goal(cpu=GOALS[size], cuda=100.0)
    figure = f"augmentation at {size} px"
    return compare(figure, pairs, goal, bench.label, unit=unit, times=False, note=note)


def _rate(work: Epoch, epoch: int, images: int, clock: Callable[[], float]) -> float:
    return images / seconds(partial(work, epoch), clock)


def _recipe(bench: Bench, size: int, name: RecipeName) -> Recipe:
    # Every picture once on both sides, whatever the recipe draws.
    return replace(bench.recipe("resnet18", name), input_size=size, sampling="images")


def _clock(bench: Bench) -> Callable[[], float]:
    # A core's own seconds, so that other programs do not count; a GPU has none.
    return time.perf_counter if bench.device.type == "cuda" else time.process_time


@contextmanager
def _engine(bench: Bench, side: Side, recipe: Recipe) -> Iterator[Epoch]:
    count = bench.scaled(toy=8, cpu=PATCHES, cuda=PATCHES)
    patches = draw_patches(side.size, count) if recipe.augment.paste else ()
    drawn = (recipe.sampling, recipe.images_per_epoch, recipe.batch_size, 0)
    look = {"mean": recipe.mean, "std": recipe.std}
    if bench.device.type == "cuda":
        images = DeviceImages(side.images, bench.device)
        feed = DeviceFeed(side, *drawn, DeviceAugmenter(recipe.augment, 0, images, patches, **look))
        yield partial(_pictures, feed, recipe)
        return
    with Augmenter(recipe.augment, 0, patches, **look, threads=1) as augmenter:
        yield partial(_pictures, Feed(side, *drawn, augmenter), recipe)


def _pictures(feed: Feed | DeviceFeed, recipe: Recipe, epoch: int) -> None:
    for inputs, _ in feed.batches(epoch):
        grey = torch.from_numpy(inputs) if isinstance(inputs, np.ndarray) else inputs
        to_input(grey.unsqueeze(1), standardise=recipe.standardise)


def _all(dataset: Castings, epoch: int) -> None:
    for place in range(len(dataset)):
        dataset[place]


def faithful(bench: Bench) -> list[Line]:
    """Hold the reference loop's augmentation against torchvision's own classic transforms."""
    rows = bench.drawn(bench.scaled(toy=8, cpu=192, cuda=512), "train")
    recipe = _recipe(bench, DECODED_SIZE, "reference")
    files = bench.files(rows)
    rate = partial(_rate, images=len(rows), clock=time.process_time)
    loop, classic = Castings(files, train_transform(recipe)), Castings(files, _classic(recipe))
    with one_thread():
        for dataset in (loop, classic):
            _all(dataset, 0)
        pairs = in_turns(
            partial(rate, partial(_all, loop)), partial(rate, partial(_all, classic)), bench.repeats
        )
    return [
        compare(
            f"reference augmentation beside torchvision's own at {DECODED_SIZE} px",
            pairs,
            FAITHFUL,
            bench.label,
            unit="images/s per core",
            times=False,
            note="ours is the reference loop's here: transforms.v2 beside transforms, both on PIL",
        )
    ]


def _classic(recipe: Recipe) -> transforms.Compose:
    size, augment = recipe.input_size, recipe.augment
    return transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.RandomHorizontalFlip(augment.horizontal_flip),
            transforms.RandomVerticalFlip(augment.vertical_flip),
            transforms.RandomAffine(
                augment.degrees, (augment.translate,) * 2, tuple(augment.scale)
            ),
            transforms.ColorJitter(augment.jitter, augment.jitter),
            transforms.ToTensor(),
            transforms.Normalize([recipe.mean] * 3, [recipe.std] * 3),
        ]
    )


def cold_start(bench: Bench) -> list[Line]:
    """From JPEG files to arrays: into memory, and into the array that all trainings share.

    CPU seconds, so that threads do not count; the first repeat warms up and is thrown away.
    """
    rows = bench.drawn(bench.scaled(toy=8, cpu=600, cuda=600), "train", "val")
    rate = partial(_rate, images=len(rows), clock=time.process_time)
    files = bench.files(rows)
    loop = partial(rate, lambda repeat: _pil_loop(files))
    arrays: list[tuple[str, Epoch, float | None]] = [
        ("JPEG files to array in memory", lambda repeat: _stack(bench, rows), None),
        (
            "cold start: JPEG files to resident array",
            lambda repeat: _resident(bench, rows),
            bench.goal(cpu=2.5, cuda=4.0),
        ),
    ]
    lines = []
    for figure, work, goal in arrays:
        pairs = in_turns(partial(rate, work), loop, bench.repeats + 2)[1:]
        note = f"PIL's rate went from {spread([reference for _, reference in pairs])}"
        if goal is not None:
            note += "; ours checks every file's sha256, writes, sums and maps the array"
        unit = "images/s per core"
        lines.append(compare(figure, pairs, goal, bench.label, unit=unit, times=False, note=note))
    return lines


def _stack(bench: Bench, rows: Sequence[Row]) -> None:
    read_stack(bench.castings, [row.path for row in rows], DECODED_SIZE)


def _resident(bench: Bench, rows: Sequence[Row]) -> None:
    with tempfile.TemporaryDirectory(dir=bench.scratch) as cache:
        resident_array(bench.castings, rows, DECODED_SIZE, Path(cache))


def _pil_loop(files: Sequence[ImageFile]) -> None:
    stack = np.empty((len(files), DECODED_SIZE, DECODED_SIZE, 3), np.uint8)
    for place, file in enumerate(files):
        with Image.open(file.path) as image:
            colour = image.convert("RGB")
        if colour.size != stack.shape[1:3]:
            colour = colour.resize(stack.shape[1:3])
        stack[place] = np.asarray(colour)
