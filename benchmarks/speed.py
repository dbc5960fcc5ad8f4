"""Our training engine beside the reference loop: both measured in turns, in one run.

`make bench` prints the table and writes reports/bench.json. Castings are those of data/castings,
or rendered ones where there are none; the table says which.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from reference_loop import Castings, ImageFile, Outcome, train_transform
from reference_loop import train as reference_train
from rich.console import Console
from rich.table import Table

from zdm_ml.data.augment import Augmenter
from zdm_ml.data.discovery import find_images
from zdm_ml.data.images import read_stack
from zdm_ml.data.synthetic import make_synthetic
from zdm_ml.models import zoo
from zdm_ml.models.net import preprocess
from zdm_ml.params import Params, Recipe, load_params
from zdm_ml.training.device import choose_device, seed_everything
from zdm_ml.training.loop import train
from zdm_ml.training.steps import Classifier, validate

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 3
AUGMENTED = 192
DECODED = 600
TRAINED, VALIDATED = 320, 96
TIMED_EPOCHS = 2
MODELS = ("luna", "resnet18")
GOALS = {"augment 300": 7.0, "augment 224": 14.0, "decode": 2.5, "train": 1.8}
"""Of the ratio reference / ours, on a CPU."""

console = Console(width=110, highlight=False)


@dataclass(frozen=True)
class Line:
    """One figure of the table; `ratio` above 1 says that ours is better."""

    figure: str
    unit: str
    ours: float
    reference: float
    ratio: float
    goal: float | None
    met: bool | None
    device: str
    note: str = ""


@dataclass(frozen=True)
class Bench:
    """What is measured on: image files of both classes in turn, params, and the device."""

    folder: Path
    files: Sequence[ImageFile]
    params: Params
    device: torch.device
    label: str

    def line(
        self,
        figure: str,
        unit: str,
        pairs: Sequence[tuple[float, float]],
        goal: float | None,
        *,
        more_is_better: bool,
        note: str = "",
    ) -> Line:
        """Return the median ratio of (ours, reference) pairs, each measured one after the other."""
        ratios = [a / b if more_is_better else b / a for a, b in pairs]
        ours, reference = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(ratios)
        met = None if goal is None else ratio >= goal
        return Line(figure, unit, ours, reference, ratio, goal, met, self.label, note)


def main(
    data: Annotated[Path | None, typer.Option(help="Castings in the layout.")] = None,
    device: Annotated[str, typer.Option()] = "auto",
    report: Annotated[Path, typer.Option()] = Path("reports/bench.json"),
) -> None:
    """Measure ours and the reference in turns, and print both."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = _open(data, choose_device(device), Path(scratch))
        lines = [
            *(augmentation(bench, size) for size in (300, 224)),
            cold_start(bench),
            *trainings(bench),
        ]
    show(lines, f"{len(bench.files)} images of {_source(data)}")
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n")


def augmentation(bench: Bench, size: int) -> Line:
    """Images per second and core, from where each side starts an epoch to a normalised tensor."""
    chosen = bench.files[:AUGMENTED]
    train_params = bench.params.train
    dataset = Castings(
        chosen,
        train_transform(size, train_params.augment, train_params.mean, train_params.std),
    )
    paths = [file.path.relative_to(bench.folder).as_posix() for file in chosen]
    images = read_stack(bench.folder, paths, size)
    places = np.arange(len(images))
    spec = Classifier(
        "any",
        torch.nn.Identity(),
        torch.device("cpu"),
        "fp32",
        size,
        train_params.mean,
        train_params.std,
    )

    def ours(epoch: int) -> None:
        for start in range(0, len(images), train_params.batch_size):
            part = places[start : start + train_params.batch_size]
            batch = augmenter.batch(images[part], epoch, part)
            preprocess(torch.from_numpy(batch).unsqueeze(1), spec)

    with one_thread(), Augmenter(train_params.augment, 0, threads=1) as augmenter:
        pairs = _pairs(
            ours, lambda epoch: [dataset[place] for place in range(len(dataset))], len(images)
        )
    goal = GOALS[f"augment {size}"]
    return bench.line(
        f"augmentation at {size} px", "images/s per core", pairs, goal, more_is_better=True
    )


def cold_start(bench: Bench) -> Line:
    """From JPEG files to an array of 300 px: CPU seconds, so that threads do not count."""
    files = bench.files[:DECODED]
    paths = [file.path.relative_to(bench.folder).as_posix() for file in files]

    def reference() -> None:
        for file in files:
            with Image.open(file.path) as image:
                np.asarray(image.convert("RGB"))

    pairs = [
        (
            len(files) / _cpu_seconds(lambda: read_stack(bench.folder, paths, 300)),
            len(files) / _cpu_seconds(reference),
        )
        for _ in range(REPEATS)
    ]
    return bench.line(
        "JPEG files to array", "images/s per core", pairs, GOALS["decode"], more_is_better=True
    )


def trainings(bench: Bench) -> list[Line]:
    """The same recipe on the same images, wall time all in, and the geometric mean over models."""
    lines = []
    for name in MODELS:
        measured = [_both(bench, name, seed) for seed in range(REPEATS)]
        errors = [statistics.median(pair[side].errors for pair in measured) for side in (0, 1)]
        lines.append(
            bench.line(
                f"{name}: {TIMED_EPOCHS} epochs, {TRAINED} images",
                "s",
                [(ours.seconds, reference.seconds) for ours, reference in measured],
                None,
                more_is_better=False,
                note=f"errors of {VALIDATED}: {errors[0]:g}, reference {errors[1]:g}",
            )
        )
    ratio = statistics.geometric_mean(line.ratio for line in lines)
    total = [sum(getattr(line, side) for line in lines) for side in ("ours", "reference")]
    goal = GOALS["train"]
    mean = Line("same recipe, geometric mean", "s", *total, ratio, goal, ratio >= goal, bench.label)
    return [*lines, mean]


def _both(bench: Bench, name: str, seed: int) -> tuple[Outcome, Outcome]:
    size = bench.params.model(name).input_size
    recipe = replace(bench.params.recipe(name, scratch=True), epochs=TIMED_EPOCHS)
    learn, judge = bench.files[:TRAINED], bench.files[TRAINED : TRAINED + VALIDATED]
    seed_everything(seed)
    first, second = (zoo.build(name, size) for _ in range(2))
    second.load_state_dict(first.state_dict())
    ours = _ours(bench, name, first, (learn, judge), recipe, seed)
    reference = reference_train(
        second,
        learn,
        judge,
        size,
        recipe=recipe,
        params=bench.params.train,
        seed=seed,
        device=bench.device,
    )
    return ours, reference


def _ours(
    bench: Bench,
    name: str,
    net: torch.nn.Module,
    sides: tuple[Sequence[ImageFile], Sequence[ImageFile]],
    recipe: Recipe,
    seed: int,
) -> Outcome:
    size, params = bench.params.model(name).input_size, bench.params.train
    started = time.perf_counter()
    arrays: list[Any] = []
    for files in sides:
        paths = [file.path.relative_to(bench.folder).as_posix() for file in files]
        arrays.append(read_stack(bench.folder, paths, size))
        arrays.append(np.array([file.target for file in files], dtype=np.int64))
    train(name, net, *arrays, recipe=recipe, params=params, seed=seed, device=bench.device)
    seconds = time.perf_counter() - started
    judge = Classifier(name, net, bench.device, "fp32", size, params.mean, params.std)
    _, accuracy = validate(judge, arrays[2], arrays[3], 0)
    return Outcome(seconds, round((1 - accuracy) * len(arrays[3])))


def _pairs(
    ours: Callable[[int], object], reference: Callable[[int], object], images: int
) -> list[tuple[float, float]]:
    """Return images per second of both, in turns, after one pass that warms up."""
    for work in (ours, reference):
        work(0)
    return [
        (images / _seconds(ours, epoch), images / _seconds(reference, epoch))
        for epoch in range(1, REPEATS + 1)
    ]


def _seconds(work: Callable[[int], object], epoch: int) -> float:
    started = time.perf_counter()
    work(epoch)
    return time.perf_counter() - started


def _cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _open(data: Path | None, device: torch.device, scratch: Path) -> Bench:
    folder = data or ROOT / "data" / "castings"
    if not folder.is_dir():
        folder = scratch / "castings"
        make_synthetic(folder, parts=80, views=10, seed=0)
    targets = {path: int("/def_front/" in target) for path, target in find_images(folder).items()}
    by_class = [[p for p in sorted(targets) if targets[p] == target] for target in (1, 0)]
    turns = [path for pair in zip(*by_class, strict=False) for path in pair]
    files = [ImageFile(folder / path, targets[path]) for path in turns]
    return Bench(folder, files, load_params(ROOT / "params.yaml"), device, _device(device))


def _source(data: Path | None) -> str:
    given = data or ROOT / "data" / "castings"
    return given.name if given.is_dir() else "rendered castings"


def _device(device: torch.device) -> str:
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{platform.machine()}, {os.cpu_count()} cores"
    )
    return f"{name}, torch {torch.__version__}"


def show(lines: Sequence[Line], title: str) -> None:
    """Print the table."""
    table = Table("figure", "unit", title=title)
    for head in ("ours", "reference", "ratio", "goal", "met"):
        table.add_column(head, justify="right")
    table.add_column("note")
    for line in lines:
        met = {None: "-", True: "yes", False: "no"}[line.met]
        goal = "-" if line.goal is None else f"{line.goal:g}"
        figures = (f"{line.ours:.4g}", f"{line.reference:.4g}", f"{line.ratio:.2f}")
        table.add_row(line.figure, line.unit, *figures, goal, met, line.note)
    console.print(table)
    console.print(lines[0].device)


if __name__ == "__main__":
    typer.run(main)
