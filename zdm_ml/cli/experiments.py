"""`zdm experiment`: strategies, folds and splits compared at a desk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from zdm_ml.cli.app import app, console, emit
from zdm_ml.cli.figures import casting_failures, fold_table, protocol_table
from zdm_ml.settings import load_settings

if TYPE_CHECKING:
    from zdm_ml.pipeline.experiments import Bench

experiment_app = typer.Typer(help="Experiments at a desk.", no_args_is_help=True)
app.add_typer(experiment_app, name="experiment")

Models = Annotated[str, typer.Option("--models", help="Comma-separated.")]
Profile = Annotated[str, typer.Option(help="full | quick | smoke")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@experiment_app.command()
def transfer(
    names: Models = "resnet18",
    profile: Profile = "quick",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Compare the three transfer strategies: nothing frozen, last blocks, head only."""
    from zdm_ml.pipeline.experiments import transfer_trials
    from zdm_ml.registry.naming import display_name

    table = Table("model", "transfer", "trainable", "init", "accuracy", "escapes", "overkills")
    for trial in transfer_trials(open_here(profile).reproduce, listed(names)):
        decision = trial.metrics["decision"]
        figures = {"accuracy": trial.metrics["accuracy"]}
        figures |= {key: decision[key] for key in ("escapes", "overkills")}
        if as_json:
            emit(
                {
                    "model": trial.model,
                    "transfer": trial.transfer,
                    "trainable": trial.trainable,
                    "init": trial.init,
                    **figures,
                }
            )
        table.add_row(
            display_name(trial.model, trial.metrics["profile"]),
            trial.transfer,
            f"{trial.trainable:,}",
            trial.init,
            f"{figures['accuracy']:.4f}",
            str(figures["escapes"]),
            str(figures["overkills"]),
        )
    console.print(table)


@experiment_app.command()
def kfold(
    names: Models = "luna",
    folds: Annotated[int, typer.Option(min=2, help="Each casting is tested in one of them.")] = 5,
    profile: Profile = "quick",
    as_json: Json = False,
) -> None:
    """Cross-validate by casting: every fold, mean, spread, and each casting that failed."""
    from zdm_ml.pipeline.cross_validation import kfold as run

    bench, models = open_here(profile), listed(names)
    result = run(bench.reproduce, models, folds)
    for model, summary in result["models"].items():
        console.print(fold_table(f"{model}, profile {profile}, {folds} folds", summary))
        for line in casting_failures(summary):
            console.print(line, markup=False)
    finish(bench, "-".join(("kfold", str(folds), profile, *models)), result, as_json)


@experiment_app.command()
def protocols(names: Models = "luna", profile: Profile = "quick", as_json: Json = False) -> None:
    """Train on the shipped split and on one without leaks; show both figures side by side."""
    from zdm_ml.pipeline.cross_validation import compare_protocols

    bench, models = open_here(profile), listed(names)
    result = compare_protocols(bench.reproduce, models)
    console.print(protocol_table(result["models"]))
    finish(bench, "-".join(("protocols", profile, *models)), result, as_json)


def open_here(profile: str) -> Bench:
    """Return a bench on this checkout that talks to the terminal."""
    from zdm_ml.pipeline.experiments import open_bench

    return open_bench(
        load_settings(),
        profile=profile,
        environ=os.environ,
        say=lambda text: console.print(text, markup=False),
    )


def listed(names: str) -> list[str]:
    """Return comma-separated names, each once."""
    return list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))


def finish(bench: Bench, name: str, result: Mapping[str, Any], as_json: bool) -> None:
    """Keep a result and say where."""
    console.print(f"written to {bench.record(name, result)}", markup=False)
    if as_json:
        emit(result)
