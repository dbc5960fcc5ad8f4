"""`zdm ledger`: the decisions about the champion, and whether their record is whole."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zdm_ml.cli.app import app, console, emit
from zdm_ml.cli.registry import Reason, Who, reason_of
from zdm_ml.errors import ConfigError, RegistryError
from zdm_ml.settings import Settings, load_settings

if TYPE_CHECKING:
    from zdm_ml.registry.chain import Report

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command()
def ledger(
    verify: Annotated[bool, typer.Option("--verify", help="Check chain and anchor.")] = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Go on after a break, on the record.")
    ] = False,
    reason: Reason = None,
    who: Who = None,
    as_json: Json = False,
) -> None:
    """List the decisions about the champion, the newest last; exit 1 if --verify finds a break."""
    from zdm_ml.registry.ledger import ledger_path, numbered

    settings = load_settings()
    path = ledger_path(settings)
    if verify and accept:
        raise ConfigError("--verify and --accept were both given", hint="choose one")
    if accept:
        _accept(settings, path, reason_of(reason, "zdm ledger --accept"), who)
    elif verify:
        _verify(settings, path, as_json)
    elif as_json:
        for number, entry in numbered(path):
            emit({"n": number} | entry)
    else:
        plain = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
        plain.print(_table(numbered(path)))


def _table(entries: list[tuple[int, dict[str, Any]]]) -> Table:
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("n", justify="right", no_wrap=True)
    for heading in ("time", "action", "from", "to", "who"):
        table.add_column(heading, no_wrap=True)
    table.add_column("reason")
    for number, entry in entries:
        whole_seconds = re.sub(r"\.\d+", "", str(entry.get("time") or ""))
        keys = ("action", "from", "to", "who", "reason")
        table.add_row(str(number), *map(_cell, (whole_seconds, *(entry.get(key) for key in keys))))
    return table


def _cell(value: object) -> str:
    """Return text of one line, with nothing in it that a table would take for markup."""
    text = "" if value is None else " ".join(str(value).split())
    return escape(text.encode(errors="replace").decode())


def _verify(settings: Settings, path: Path, as_json: bool) -> None:
    from zdm_ml.registry.chain import verify
    from zdm_ml.registry.glance import anchored

    anchor, checked = None, True
    try:
        # Before the file is read: a decision of this moment must not leave the anchor ahead.
        anchor = anchored(settings.mlflow_uri)
    except RegistryError as error:
        checked = False
        console.print(f"the anchor was not checked: {error.problem}", markup=False, soft_wrap=True)
    report = verify(path.read_bytes() if path.is_file() else b"", anchor)
    apart = _apart(settings, path) if checked else None
    if as_json:
        agrees = apart is None if checked else None
        emit(_as_json(report, anchor_checked=checked) | {"champion_agrees": agrees})
    if apart:
        console.print(apart, markup=False, soft_wrap=True)
    for note in _notes(report, checked):
        console.print(note, markup=False, soft_wrap=True)
    if report.fault is not None:
        raise RegistryError(
            f"{path}, {report.fault}",
            hint="keep this file as evidence and put a backup in its place; without one, "
            "`zdm ledger --accept --reason ...` goes on from here, on the record",
        )
    what = "chain and anchor hold" if checked else "the chain holds"
    counted = f"{report.lines} line" + "s" * (report.lines != 1)
    console.print(f"{path}: {counted}, {what}", markup=False, soft_wrap=True)


def _apart(settings: Settings, path: Path) -> str | None:
    """Return what to say where the registry's champion is not who the last move made champion."""
    from zdm_ml.registry.glance import champion_summary
    from zdm_ml.registry.ledger import last_move

    for pause in (0, 1, 2):  # the line of a decision of this moment follows its alias
        time.sleep(pause)
        now = (champion_summary(settings.mlflow_uri) or {}).get("version")
        moved = (last_move(path) or {}).get("to")
        if now == moved:
            return None
    return (
        f"champion is version {now or '-'}, the last move of the ledger names {moved or '-'}:"
        " a move was cut short (repeat it), or the alias was moved by hand"
    )


def _as_json(report: Report, *, anchor_checked: bool) -> dict[str, object]:
    fault = report.fault
    return {
        "intact": fault is None,
        "line": fault.line if fault else None,
        "problem": fault.problem if fault else None,
        "lines": report.lines,
        "adopted": report.begins - 1,
        "torn": list(report.torn),
        "anchor_checked": anchor_checked,
        "behind": report.behind if anchor_checked else None,
    }


def _notes(report: Report, checked: bool) -> list[str]:
    notes = []
    if report.begins > report.lines and report.lines:
        notes.append("no line carries a hash: the next decision adopts them as they are")
    elif report.begins > 1:
        notes.append(f"lines 1 to {report.begins - 1} are held as a whole by line {report.begins}")
    notes += [f"line {number} was cut short by a crash" for number in report.torn]
    if checked and report.behind and report.fault is None:
        notes.append(f"{report.behind} lines are not anchored yet: the next decision anchors them")
    return notes


def _accept(settings: Settings, path: Path, reason: str, who: str | None) -> None:
    from zdm_ml.registry.anchor import RegistryAnchor
    from zdm_ml.registry.connection import connect
    from zdm_ml.registry.ledger import accept
    from zdm_ml.registry.promotion import promotion_lock

    client = connect(settings.mlflow_uri)
    with promotion_lock(settings):
        fault = accept(path, RegistryAnchor(client), reason=reason, who=who)
    console.print(f"accepted and recorded: {fault}", markup=False, soft_wrap=True)
