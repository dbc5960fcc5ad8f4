"""`zdm data log` and `zdm data diff`: what the data versions hold, and what sets them apart."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from zdm_ml.cli.app import emit
from zdm_ml.cli.data import SHOWN_REASONS, data_app
from zdm_ml.errors import RegistryError
from zdm_ml.settings import load_settings

if TYPE_CHECKING:
    from zdm_ml.data.history import LogEntry


@data_app.command("log")
def log_(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the data versions, the newest first, and the models that were trained on each."""
    from zdm_ml.data.history import read_log
    from zdm_ml.registry.glance import versions_by_data

    settings = load_settings()
    try:
        trained = versions_by_data(settings.mlflow_uri)
    except RegistryError:
        trained = None
    for entry in read_log(settings.root, trained):
        if as_json:
            emit(_log_json(entry))
        else:
            typer.echo(_log_line(entry))


def _log_json(entry: LogEntry) -> dict[str, object]:
    return {
        **asdict(entry.version),
        "images": entry.census and entry.census.images,
        "castings": entry.census and entry.census.castings,
        "added": entry.added,
        "removed": entry.removed,
        "models": entry.models,
    }


def _log_line(entry: LogEntry) -> str:
    version, models = entry.version, entry.models
    told = "unknown, MLflow does not answer" if models is None else ", ".join(models) or "none"
    return f"{version.commit[:12]}  {version.date}  {version.message}  models: {told}"


@data_app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A commit, a DVC hash or latest.")],
    after: Annotated[str, typer.Argument(help="The same, of the later version.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say which images and castings differ between two data versions."""
    from zdm_ml.data.history import compare_versions

    found = asdict(compare_versions(load_settings().root, before, after))
    if as_json:
        emit(found)
        return
    for name, paths in found.items():
        shown = ", ".join(paths[:SHOWN_REASONS]) + (" ..." if len(paths) > SHOWN_REASONS else "")
        typer.echo(f"{name.replace('_', ' ')}: {len(paths)}  {shown}".rstrip())
