"""`zdm up`, `zdm down`, `zdm status`: the stack; `zdm run`: the whole road in one command."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated, Any

import typer

from zdm_ml.cli.app import app, console, emit
from zdm_ml.errors import DataError, RegistryError, ZdmError
from zdm_ml.gpus import count_gpus, visible_devices
from zdm_ml.settings import Settings, load_settings


@app.command()
def up() -> None:
    """Start Airflow, MLflow and the inference server on this machine, and wait for them."""
    from zdm_ml.stack import up as start

    settings = _stack_settings()
    started = start(settings, os.environ)
    say("the stack is up" if started else "the stack is up already")
    say_urls(settings)


@app.command()
def down() -> None:
    """Stop every process of the stack, running tasks included."""
    from zdm_ml.stack import down as stop

    count = stop(load_settings())
    say(f"stopped {count} processes" if count else "nothing was running")


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Show health, URLs, the champion and the last retraining."""
    from zdm_ml.stack import check_health, urls

    settings = load_settings()
    health = check_health(settings)
    content: dict[str, Any] = {
        "healthy": health.healthy,
        "urls": urls(settings),
        "champion": read_champion(settings),
        "last_run": _last_run(settings),
        "requests": _requests(settings),
    }
    if as_json:
        emit(content)
        return
    for name, problem in health.problems.items():
        say(f"{name:10}  {problem or 'healthy'}")
    if health.healthy:
        say_urls(settings)
    say(f"champion    {title(content['champion'])}")
    say(f"last run    {_words(content['last_run'])}")
    say_requests(content["requests"])


@app.command()
def run(
    data: Annotated[
        str, typer.Option(help="A zip, a folder, kaggle or synthetic; empty: what is there.")
    ] = "",
    profile: Annotated[str, typer.Option(help="auto | full | quick | smoke")] = "auto",
) -> None:
    """Import, start the stack, retrain, promote, predict; follow it all and say what came of it."""
    from zdm_ml.airflow_api import airflow_api
    from zdm_ml.cli.retraining import retrain_and_promote
    from zdm_ml.registry.glance import count_entries
    from zdm_ml.stack import up as start

    settings = _stack_settings()
    chosen = _choose_profile(profile)
    phase = "nothing was started"
    try:
        _ensure_data(settings, data)
        say("starting the stack")
        phase = "the stack stays up, no run was started"
        start(settings, os.environ)
        settings = load_settings()
        say_urls(settings)
        before = count_entries(settings.mlflow_uri)
        phase = "stopped following; the run goes on and the stack stays up"
        retrain_and_promote(settings, airflow_api(settings), chosen, before)
    except KeyboardInterrupt:
        say(phase)
        say("`zdm status` shows it, `make down` (or `zdm down`) stops it with everything in it")
        raise typer.Exit(130) from None


def _words(run: dict[str, Any] | None) -> str:
    return f"{run['run_id']}: {run['state']}, {run['decision'] or 'no decision'}" if run else "none"


def _ensure_data(settings: Settings, source: str) -> None:
    from zdm_ml.cli.data import import_source
    from zdm_ml.data.versions import versions

    if source:
        import_source(settings, source)
        return
    known = versions(settings.root)
    if known:
        say(f"data: version {known[0].commit[:12]}, DVC hash {known[0].md5}")
        return
    try:
        import_source(settings, "kaggle")
    except DataError as error:
        say(f"no Kaggle: {error.problem}")
        console.print(
            "SYNTHETIC CASTINGS: rendered images stand in for real ones; give DATA=<zip>",
            style="bold yellow",
            markup=False,
        )
        import_source(settings, "synthetic")


def _choose_profile(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "full" if count_gpus() else "quick"


def _stack_settings() -> Settings:
    """Return the settings with a slot for each of the machine's GPUs, unless the shell says."""
    settings = load_settings()
    if "ZDM_GPU_SLOTS" in os.environ:
        return settings
    granted = len(visible_devices(os.environ)) or count_gpus()
    return replace(settings, gpu_slots=max(1, granted))


def say(text: str) -> None:
    """Print a line for people."""
    console.print(text, markup=False, soft_wrap=True)


def say_urls(settings: Settings) -> None:
    """Print where the servers answer, with the login."""
    from zdm_ml.components import USER, password
    from zdm_ml.stack import urls

    for name, url in urls(settings).items():
        login = f"  login {USER} / {password(settings)}" if name == "airflow" else ""
        say(f"  {name:10}{url}{login}")


def say_requests(requests: list[dict[str, Any]]) -> None:
    """Print what waits for a person, and where the answer is given."""
    for request in requests:
        say(f"waits for a person: {request['subject']} Approve or reject: {request['url']}")


def read_champion(settings: Settings) -> dict[str, str] | None:
    """Return the champion, or None where there is none or the registry does not answer."""
    from zdm_ml.registry.glance import champion_summary

    try:
        return champion_summary(settings.mlflow_uri)
    except RegistryError:
        return None


def _last_run(settings: Settings) -> dict[str, Any] | None:
    from zdm_ml.airflow_api import airflow_api
    from zdm_ml.outcome import last_run

    try:
        return last_run(airflow_api(settings, timeout=5))
    except ZdmError:
        return None


def _requests(settings: Settings) -> list[dict[str, Any]]:
    from zdm_ml.airflow_api import airflow_api

    try:
        return airflow_api(settings, timeout=5).waiting_requests("promote")
    except ZdmError:
        return []


def title(champion: Any) -> str:
    """Return a champion as people read it."""
    from zdm_ml.registry.naming import display_name

    if champion is None:
        return "none"
    name = display_name(champion["model_name"], champion["profile"])
    return f"version {champion['version']}, {name}, run {champion['run_id']}"
