"""One command per stage of dvc.yaml; each works on the files that dvc.yaml names."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from zdm_ml.cli.app import app, console, counting
from zdm_ml.cli.figures import split_lines
from zdm_ml.errors import ConfigError
from zdm_ml.settings import load_settings

if TYPE_CHECKING:
    from zdm_ml.pipeline.reporter import Progress, Show
    from zdm_ml.pipeline.stages import Context

ModelOption = Annotated[str, typer.Option("--model", help="e.g. luna")]


@app.command()
def audit() -> None:
    """Decode every image; report duplicates, conflicts and damage."""
    from zdm_ml.pipeline.stages import audit as run

    with counting("auditing images") as progress:
        report = run(_context(), progress)
    console.print(
        f"{report['images']} images, {report['exact_duplicates']} exact duplicates, "
        f"{report['identical_across_splits']} identical across the shipped split, "
        f"{report['label_conflicts']} label conflicts",
        markup=False,
    )


@app.command()
def split() -> None:
    """Put every image on one side: train, val, calibration or test."""
    from zdm_ml.pipeline.stages import split as run

    context = _context()
    report = run(context)
    for line in split_lines(report):
        console.print(line, markup=False)
    if report["leaky"]:
        console.print(
            f"LEAKY: {report['parts_on_two_sides']} castings are on two sides of the shipped "
            "split; its figures are too good for castings that no model has seen",
            style="bold red",
            markup=False,
        )
    elif report["kin_on_two_sides"]:
        console.print(
            f"{len(report['kin_on_two_sides'])} families of castings that may be one are on two "
            "sides, where earlier versions put them; `split.remember: false` deals all anew",
            style="yellow",
            markup=False,
        )
    _say_estimate(context, list(context.params.models))


@app.command()
def train(
    model: ModelOption,
    recipe: Annotated[
        str | None, typer.Option(help="modern | reference; with --out. Else params.yaml's.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write net, threshold and curve to this folder, not to the stage's outs."
        ),
    ] = None,
) -> None:
    """Train one model; a killed training goes on at its epoch.

    Under `torchrun --standalone --nproc-per-node N -m zdm_ml` N processes train it together.
    """
    context = _context(recipe, out)
    context.params.model(model)
    leads = context.settings.rank == 0
    if leads:
        _say_estimate(context, [model])
    else:
        logging.getLogger("zdm_ml").setLevel(logging.WARNING)
    with _epochs(model, shown=leads) as show:
        if out is None:
            from zdm_ml.pipeline.train_stage import train as run

            result = run(context, model, show)
        else:
            from zdm_ml.pipeline.desk import train_alone

            result = train_alone(context, model, out, show)
    if not leads:
        return
    console.print(f"{model}: kept epoch {result.best_epoch} of {len(result.history)}", markup=False)
    if out is not None:
        console.print(f"`zdm predict --model {out} IMAGE...` judges with it", markup=False)


@app.command()
def evaluate(model: ModelOption) -> None:
    """Score one model, choose its threshold on castings it never saw, test its robustness."""
    context = _context()
    context.params.model(model)
    from zdm_ml.pipeline.evaluate_stage import evaluate as run

    with counting(f"scoring with {model}") as progress:
        figures = run(context, model, progress)
    decision = figures["decision"]
    console.print(
        f"{model}: accuracy {figures['accuracy']:.4f}, {decision['escapes']} escapes and "
        f"{decision['overkills']} overkills in {figures['images']} test images",
        markup=False,
    )
    castings, worst = figures["by_casting"], figures["robustness"]["worst"]
    console.print(
        f"{model}: {castings['escapes']} of {castings['defective']} defective castings escaped, "
        f"{castings['overkills']} of {castings['good']} good ones rejected; worst under "
        f"{worst['name']}: balanced accuracy {worst['balanced_accuracy']:.4f}"
        f"{'; LEAKY: test castings were trained on' if figures['leaky'] else ''}",
        markup=False,
    )


@app.command()
def latency() -> None:
    """Time all trained models at batch 1, alone on the machine."""
    from zdm_ml.pipeline.compare_stages import latency as run

    with counting("timing models") as progress:
        rows = run(_context(), progress)
    for name, row in rows.items():
        console.print(
            f"{name}: p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms", markup=False
        )


@app.command()
def confirm() -> None:
    """Train the two leading models with further seeds, to tell merit from luck."""
    from zdm_ml.pipeline.confirm_stage import confirm as run

    with _epochs("seeds", shown=True) as show:
        report = run(_context(), show)
    if not report["costs"]:
        console.print(f"{report['seeds']} seed: the leading models are taken as they are")
    for name, costs in report["costs"].items():
        shown = ", ".join(f"{cost:,.0f}" for cost in costs)
        console.print(f"{name}: cost per 10,000 parts by seed {shown}", markup=False)


@app.command()
def select() -> None:
    """Rank the evaluated models and name the winner."""
    from zdm_ml.pipeline.compare_stages import select as run

    selection, board = run(_context())
    console.print(board, markup=False)
    console.print(selection["reason"], markup=False)


def _context(recipe: str | None = None, out: Path | None = None) -> Context:
    from zdm_ml.pipeline.execution import STAGE_PROCESS
    from zdm_ml.pipeline.locks import die_with
    from zdm_ml.pipeline.stages import Context

    if STAGE_PROCESS in os.environ:
        die_with(int(os.environ[STAGE_PROCESS]))
    if recipe is not None and out is None:
        raise ConfigError(
            "--recipe without --out: a stage's recipe is the one in params.yaml",
            hint="name a folder with --out, or set train.recipe in params.yaml and `dvc repro`",
        )
    return Context(load_settings(), recipe)


def _say_estimate(context: Context, names: list[str]) -> None:
    """Say how long the trainings will take where that is longer than a coffee."""
    from zdm_ml.training.device import choose_device

    if choose_device(context.params.train.device).type != "cpu" or context.params.profile != "full":
        return
    from zdm_ml.pipeline.train_stage import estimate_hours

    pretrained, scratch = estimate_hours(context, names)
    console.print(
        f"estimate: training {', '.join(names)} takes about {pretrained:.1f} h on this CPU "
        f"({os.cpu_count()} cores) from pretrained weights, {scratch:.1f} h from scratch; "
        "`zdm profile quick` makes it minutes",
        markup=False,
    )


@contextmanager
def _epochs(model: str, *, shown: bool) -> Iterator[Show]:
    """Yield what shows a training on a terminal; a log has a line per epoch already."""
    if not shown or not console.is_terminal:
        yield lambda progress: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rest]}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(model, total=None, rest="")

        def show(progress: Progress) -> None:
            from zdm_ml.pipeline.reporter import duration

            left, last = progress.seconds_left, progress.last
            figures = (
                f"  {last.images_per_second:.0f} images/s, loss {last.train_loss:.3f}, "
                f"val accuracy {last.val_accuracy:.3f}"
                if last
                else ""
            )
            epochs = progress.epochs if progress.epoch else 1
            step = f"epoch {progress.epoch}/{epochs}" if progress.epoch else "features"
            bar.update(
                task,
                completed=max(0, progress.epoch - 1) * progress.total + progress.done,
                total=epochs * progress.total,
                description=f"{model} {step}",
                rest=(f"{duration(left)} left" if left else "") + figures,
            )

        yield show
