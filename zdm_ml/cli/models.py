"""`zdm models`, `zdm profile`: what there is to train, and how thoroughly."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from zdm_ml.cli.app import app, console, emit
from zdm_ml.settings import load_settings


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
