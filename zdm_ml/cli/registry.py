"""`zdm register`, `gate`, `approval`, `promote`, `rollback`, `verify-live`: registry effects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from zdm_ml.cli.app import app, console, emit
from zdm_ml.errors import ConfigError
from zdm_ml.settings import Settings, load_settings

if TYPE_CHECKING:
    from zdm_ml.registry.decision import Decision
    from zdm_ml.registry.evidence import ImagesFor

Json = Annotated[bool, typer.Option("--json", help="Print the decision as one line of JSON.")]
Version = Annotated[str, typer.Argument(help="A version's number or alias.")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds the server may take to follow.")]
Again = Annotated[
    bool, typer.Option(help="Let in what was rolled back, or is older than the champion.")
]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the ledger.")]
Asked = Annotated[
    str | None,
    typer.Option(
        help="When this was asked for, ISO 8601: a champion that moved since was not meant."
    ),
]
Who = Annotated[str | None, typer.Option(help="Who asks, if that is not this account.")]

NOT_ELIGIBLE = 3
"""Exit code of a registration that will be refused however often it is tried."""


@app.command()
def register(
    run_id: Annotated[str, typer.Option("--run-id", help="The run, as the orchestrator names it.")],
    workspace: Annotated[
        Path | None, typer.Option(help="The run's folder, if it is not the usual one.")
    ] = None,
    json: Json = False,
) -> None:
    """Register the winner of a published run as challenger; exit 3 if it is not eligible."""
    from zdm_ml.pipeline.workspace import Workspace, is_published
    from zdm_ml.registry.finished import open_run
    from zdm_ml.registry.promotion import never_judged
    from zdm_ml.registry.registration import register_run

    settings = load_settings()
    run = open_run(settings, run_id, workspace)
    decision = register_run(
        settings, run, published=lambda name: is_published(settings, Workspace(name, run.root))
    )
    _answer(decision, json, pending=never_judged(settings, decision))
    if decision.decision == "not_eligible":
        raise typer.Exit(NOT_ELIGIBLE)


@app.command()
def gate(
    version: Version = "challenger",
    again: Again = False,
    ask: Annotated[
        bool, typer.Option(help="Ask for an approval even where params.yaml demands none.")
    ] = False,
    asked: Asked = None,
    json: Json = False,
) -> None:
    """Check a version against the champion; nothing moves. JSON: `approval` is what to ask whom."""
    from zdm_ml.registry.asking import approval_request
    from zdm_ml.registry.promotion import gate as examine_version

    settings = load_settings()
    decision = examine_version(
        settings, version, images_for=_images(settings), again=again, asked=asked
    )
    _answer(decision, json, approval=approval_request(settings, decision, ask=ask))


@app.command()
def approval(
    version: Annotated[str, typer.Argument(help="The number of the version that was checked.")],
    answer: Annotated[
        Literal["ask", "approve", "reject"], typer.Argument(help="ask: a request was made.")
    ],
    digest: Annotated[str, typer.Option(help="The package that was looked at.")],
    champion: Annotated[
        str, typer.Option(help="The version it was compared with; empty: there was none.")
    ] = "",
    who: Annotated[str, typer.Option(help="The user id of the person who answered.")] = "",
    name: Annotated[str, typer.Option(help="That person's name, if it is not the id.")] = "",
    reason: Annotated[str, typer.Option(help="What the person wrote.")] = "",
    json: Json = False,
) -> None:
    """Write into the ledger what a person answered to DAG `promote`, which calls this."""
    from zdm_ml.registry.anchor import RegistryAnchor
    from zdm_ml.registry.answers import record_answer
    from zdm_ml.registry.connection import connect

    settings = load_settings()
    decision = record_answer(
        settings,
        version,
        answer,
        anchor=RegistryAnchor(connect(settings.mlflow_uri)),
        digest=digest,
        champion=champion or None,
        who=who or None,
        name=name,
        reason=reason,
    )
    _answer(decision, json)


@app.command()
def promote(
    version: Version = "challenger",
    again: Again = False,
    digest: Annotated[
        str | None, typer.Option(help="Refuse if the version is another package than this.")
    ] = None,
    approved: Annotated[
        bool, typer.Option(help="Refuse unless the ledger holds a person's approval.")
    ] = False,
    asked: Asked = None,
    json: Json = False,
) -> None:
    """Make a version champion if it passes the gate; a worse one leaves the champion, exit 0.

    Where params.yaml demands an approval (promote.require_approval), --approved is implied.
    """
    from zdm_ml.registry.promotion import promote as promote_version

    settings = load_settings()
    decision = promote_version(
        settings,
        version,
        images_for=_images(settings),
        again=again,
        asked=asked,
        digest=digest,
        approved=approved,
    )
    _answer(decision, json)


@app.command()
def rollback(
    to: Annotated[
        int | None, typer.Option(min=1, help="An earlier champion; without it, the previous one.")
    ] = None,
    reason: Reason = None,
    who: Who = None,
    asked: Asked = None,
    timeout: Timeout = 60.0,
    json: Json = False,
) -> None:
    """Make an earlier champion champion again; exit 1 if a running server does not follow."""
    from zdm_ml.registry.rollback import Request
    from zdm_ml.registry.rollback import rollback as roll_back

    number = None if to is None else str(to)
    request = Request(reason_of(reason, "zdm rollback"), number, who, asked)
    decision = roll_back(load_settings(), request, timeout=timeout)
    _answer(decision, json)
    if decision.checks[-1].state == "failed":
        raise typer.Exit(1)


@app.command()
def verify_live(timeout: Timeout = 60.0, json: Json = False) -> None:
    """Exit 1 if the inference server does not answer with the champion that the registry names."""
    from zdm_ml.registry.rollback import verify_live as verify

    decision = verify(load_settings(), timeout=timeout)
    _answer(decision, json)
    if decision.decision == "not_live":
        raise typer.Exit(1)


def reason_of(given: str | None, command: str) -> str:
    """Return the reason; a decision that a person makes is not written down without one."""
    reason = (given or "").strip()
    if not reason:
        raise ConfigError(
            f"{command} needs a reason",
            hint=f'`{command} --reason "escapes on line 3"`: it is kept in the ledger',
        )
    return reason


def _images(settings: Settings) -> ImagesFor:
    from zdm_ml.data.checkout import materialise

    return lambda data_md5: materialise(settings, data_md5)


def _answer(decision: Decision, as_json: bool, **more: object) -> None:
    from rich.table import Table

    if decision.checks:
        table = Table("check", "state", "value", "limit")
        for item in decision.checks:
            table.add_row(item.name, item.state, _text(item.value), _text(item.limit))
        console.print(table)
    console.print(f"{decision.decision}: {decision.reason}", markup=False, soft_wrap=True)
    if as_json:
        emit(decision.as_json() | more)


def _text(value: float | int | str | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
