"""`zdm workspace`: what an orchestrated run consists of; `zdm gc`: what may be forgotten."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer

from zdm_ml.cli.app import app, console, emit
from zdm_ml.errors import ConfigError
from zdm_ml.settings import load_settings

workspace_app = typer.Typer(
    help="Run workspaces: plan, run one stage, publish.", no_args_is_help=True
)
app.add_typer(workspace_app, name="workspace")

RunId = Annotated[str, typer.Option("--run-id", help="The run, as the orchestrator names it.")]


@workspace_app.command()
def plan(
    run_id: RunId,
    profile: Annotated[str, typer.Option(help="full | quick | smoke")] = "full",
    models: Annotated[str, typer.Option(help="Comma-separated; empty means all.")] = "",
    data_version: Annotated[str, typer.Option(help="latest, a commit or a DVC hash")] = "latest",
    seed: Annotated[str, typer.Option(help="Empty keeps the one in params.yaml.")] = "",
    force: Annotated[str, typer.Option(help="true runs every stage again.")] = "false",
    note: Annotated[str, typer.Option(help="Why this run.")] = "",
) -> None:
    """Make a run's workspace and decide which stages are stale; prints the record as JSON."""
    from zdm_ml.pipeline.plan import RunRequest, plan_run
    from zdm_ml.pipeline.retraining import open_parent_run

    settings = load_settings()
    if seed and not seed.isdigit():
        raise ConfigError(f"seed {seed!r} is not a whole number", hint="leave it out or correct it")
    request = RunRequest(
        run_id=run_id,
        profile=profile,
        models=tuple(name.strip() for name in models.split(",") if name.strip()),
        data_version=data_version or "latest",
        seed=int(seed) if seed else None,
        force=force.lower() == "true",
        note=note,
    )
    record = open_parent_run(settings, plan_run(settings, request))
    if record.stale:
        console.print(f"to run: {', '.join(record.stale)}", markup=False)
    else:
        console.print("nothing to retrain: same data, same code, same parameters", markup=False)
    emit(asdict(record))


@workspace_app.command()
def stage(run_id: RunId, name: Annotated[str, typer.Argument(help="e.g. train@luna")]) -> None:
    """Run one stage of a run, on its own device, never twice at once."""
    from zdm_ml.pipeline.execution import run_stage
    from zdm_ml.pipeline.locks import die_with_parent

    die_with_parent()
    code = run_stage(load_settings(), run_id, name, environ=os.environ, say=typer.echo)
    raise typer.Exit(code)


@workspace_app.command()
def publish(run_id: RunId) -> None:
    """Push a run's outs and tag its parameters and lock, so that every byte can come back."""
    from zdm_ml.pipeline.workspace import existing_workspace, run_tag
    from zdm_ml.pipeline.workspace import publish as publish_run

    settings = load_settings()
    workspace = existing_workspace(settings, run_id)
    commit = publish_run(settings, workspace)
    emit({"run_id": workspace.run_id, "tag": run_tag(workspace.run_id), "commit": commit})


@app.command()
def gc(
    keep: Annotated[int, typer.Option(min=1, help="How many of the latest runs stay.")] = 5,
) -> None:
    """Remove old workspaces, tags, checkpoints and cache objects that nothing needs."""
    from zdm_ml.errors import RegistryError
    from zdm_ml.pipeline.retention import collect
    from zdm_ml.registry.versions import registered_runs

    settings = load_settings()
    try:
        needed = registered_runs(settings.mlflow_uri)
    except RegistryError as error:
        raise RegistryError(
            "which runs the registered versions need is not known while MLflow does not answer",
            hint="`zdm up`, then `zdm gc` again; nothing was removed",
        ) from error
    removed = collect(settings, keep=keep, needed=needed)
    console.print(
        f"removed {removed.runs} runs, {removed.checkpoints} checkpoints; "
        f"DVC cache: {removed.cache_summary}",
        markup=False,
    )
