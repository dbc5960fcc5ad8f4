"""`zdm models`, `zdm profile`, `zdm experiment`: what there is to train, and trying it."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from zdm_ml.cli.app import app, console, emit
from zdm_ml.settings import load_settings

experiment_app = typer.Typer(help="Experiments at a desk.", no_args_is_help=True)
app.add_typer(experiment_app, name="experiment")


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list on stdout.")] = False,
) -> None:
    """List the models: family, parameters, input size, weights and their licence."""
    from zdm_ml.models.catalogue import describe

    rows = describe()
    if as_json:
        emit(rows)
        return
    table = Table("name", "family", box=SIMPLE)
    for heading in ("parameters", "trainable", "input"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("weights", no_wrap=True)
    for row in rows:
        table.add_row(
            row["name"],
            row["family"],
            f"{row['parameters']:,}",
            f"{row['trainable']:,}",
            f"{row['input_size']} px",
            row["weights"],
        )
    plain = Console(width=120, highlight=False)
    plain.print(table)
    for licence in dict.fromkeys(row["licence"] for row in rows):
        names = ", ".join(row["name"] for row in rows if row["licence"] == licence)
        plain.print(f"{names}: {licence}", markup=False, soft_wrap=True)


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="quick | smoke; full is params.yaml as committed")],
) -> None:
    """Lay a profile over params.yaml, comments kept."""
    from zdm_ml.pipeline.profiles import write_profile

    settings = load_settings()
    write_profile(settings.root, name)
    console.print(f"params.yaml holds profile {name}", markup=False)


@experiment_app.command()
def transfer(
    names: Annotated[str, typer.Option("--models", help="Comma-separated.")] = "resnet18",
    profile: Annotated[str, typer.Option(help="full | quick | smoke")] = "quick",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Compare the three transfer strategies: nothing frozen, last blocks, head only."""
    from zdm_ml.pipeline.experiments import transfer_trials
    from zdm_ml.registry.naming import display_name

    table = Table("model", "transfer", "trainable", "init", "accuracy", "escapes", "overkills")
    trials = transfer_trials(
        load_settings(),
        [name.strip() for name in names.split(",")],
        profile=profile,
        environ=os.environ,
        say=lambda text: console.print(text, markup=False),
    )
    for trial in trials:
        figures = {key: trial.metrics[key] for key in ("accuracy", "escapes", "overkills")}
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
