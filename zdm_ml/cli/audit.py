"""`zdm data audit`: what is wrong with a folder of castings, how bad it is, what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from zdm_ml.cli.app import console, counting, emit
from zdm_ml.cli.data import data_app
from zdm_ml.errors import ConfigError
from zdm_ml.params import AuditParams
from zdm_ml.settings import load_settings

COLOURS = {"red": "bold red", "amber": "yellow", "green": "green"}
SHOWN = 5

DEFAULTS = AuditParams(max_pixels=25_000_000, part_pattern=None)
"""Outside a checkout there is no params.yaml to ask."""


@data_app.command("audit")
def audit_(
    path: Annotated[Path, typer.Argument(help="A folder with train/ and test/ at some depth.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures here.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Write one CSV row per image here.")] = None,
) -> None:
    """Find duplicates, leaks, label conflicts and shortcuts in a folder of images."""
    from zdm_ml.data.audit import audit_images
    from zdm_ml.data.discovery import find_images
    from zdm_ml.data.known_parts import known_parts, read_parts_files

    for target in (html, manifest):
        _check_target(target)
    params = _params()
    files = find_images(path)
    known = known_parts(files, read_parts_files(path, files), params.part_pattern)
    with counting("auditing images") as progress:
        audit = audit_images(
            path, files, params, known=known.parts, warnings=known.warnings, progress=progress
        )
    if manifest:
        from zdm_ml.data.manifest import write_manifest

        rows = [replace(row, kinds=known.kinds.get(row.path, "")) for row in audit.rows]
        _write(manifest, lambda: write_manifest(manifest, rows))
    if html:
        from zdm_ml.data.audit_page import write_page

        _write(html, lambda: write_page(html, audit))
    if as_json:
        emit(audit.report)
    else:
        show_report(audit.report)
        for target in filter(None, (html, manifest)):
            console.print(f"written: {target}", markup=False)


def show_report(report: dict[str, Any]) -> None:
    """Print what an audit found, the worst first."""
    console.print(
        f"{report['images']} images of {report['parts']} castings: {report['parts_defect']} "
        f"defective, {report['parts_ok']} good, {report['parts_mixed']} with both labels",
        markup=False,
    )
    table = Table("", "looked at", "found")
    for finding in report["findings"]:
        level = Text(finding["level"], style=COLOURS[finding["level"]])
        # File names may hold what rich takes for markup.
        table.add_row(level, finding["title"], Text(finding["measured"]))
    console.print(table)
    for name, members in list(report["label_conflict_images"]["castings"].items())[:SHOWN]:
        listed = "; ".join(
            f"{label}: {', '.join(paths[:SHOWN])}" for label, paths in members.items()
        )
        console.print(f"both labels, casting {name}: {listed}", markup=False)
    for name in report["undecodable_images"][:SHOWN]:
        console.print(f"does not decode: {name}", markup=False)
    for warning in report["warnings"]:
        console.print(f"warning: {warning}", style="yellow", markup=False)
    for number, suggestion in enumerate(report["suggestions"], start=1):
        console.print(f"{number}. {suggestion}", markup=False)


def _params() -> AuditParams:
    from zdm_ml.params import load_params

    try:
        root = load_settings().root
    except ConfigError:
        return DEFAULTS
    return load_params(root / "params.yaml").audit


def _check_target(target: Path | None) -> None:
    """Refuse a target before the work is done, where that can be told."""
    if target is None:
        return
    parent = next(folder for folder in (target.parent, *target.parent.parents) if folder.exists())
    if target.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK):
        raise _unwritable(target, "it is a folder" if target.is_dir() else f"look at {parent}")


def _write(target: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise _unwritable(target, str(error.strerror)) from error


def _unwritable(target: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{target} cannot be written: {reason}", hint="name another file, or free some space"
    )
