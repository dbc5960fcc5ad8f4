"""`zdm data intake`: what has arrived in the inbox becomes a data version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zdm_ml.cli.app import console, counting, emit
from zdm_ml.cli.data import SHOWN_REASONS, data_app
from zdm_ml.settings import Settings, load_settings

if TYPE_CHECKING:
    from zdm_ml.data.intake import Intake


@data_app.command()
def intake(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    settle: Annotated[
        float, typer.Option(min=0.0, help="Seconds in which a whole file does not change.")
    ] = 5.0,
) -> None:
    """Make one new data version of what has arrived in the inbox (ZDM_INBOX)."""
    from zdm_ml.data.intake import take_in
    from zdm_ml.params import load_params

    settings = load_settings()
    params = load_params(settings.root / "params.yaml")
    with counting("recognising castings") as progress:
        result = take_in(settings, params, settle_seconds=settle, progress=progress)
    _report_intake(settings, result)
    if as_json:
        emit(_intake_json(result))


def _intake_json(result: Intake) -> dict[str, object]:
    sorting, version = result.sorting, result.version
    return {
        "decision": "imported" if result.imported else "nothing",
        "added": len(sorting.fresh),
        "per_class": result.per_class,
        "quarantined": len(sorting.bad),
        "duplicates": len(sorting.duplicates),
        "conflicts": len(sorting.conflicts),
        "waiting": len(sorting.waiting),
        "data_md5": version.md5 if version else None,
        "version": version.commit if version else None,
        "pending": result.pending,
        "announce": result.announce,
        "reason": result.reason,
    }


def _report_intake(settings: Settings, result: Intake) -> None:
    console.print(f"inbox {settings.inbox}: {result.reason}", markup=False)
    for name, left_out in (
        ("quarantine", result.sorting.bad),
        ("review", result.sorting.conflicts),
    ):
        for path, reason in sorted(left_out.items())[:SHOWN_REASONS]:
            console.print(f"  {path}: {reason}", markup=False)
        if left_out:
            console.print(f"  kept in {settings.home / name}", markup=False)
    if result.imported and result.version:
        console.print(f"new data version {result.version.commit[:12]}", markup=False)
