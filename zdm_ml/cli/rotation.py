"""`zdm data rotate-test`: fresh test castings in place of those that were chosen on too often."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from zdm_ml.cli.app import console, counting, emit
from zdm_ml.cli.data import data_app
from zdm_ml.settings import Settings, load_settings, make_home


@data_app.command("rotate-test")
def rotate_test(
    apply: Annotated[
        bool, typer.Option("--apply", help="Make the data version; without it, only propose.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Propose fresh test castings that the champion never trained on; the old ones train."""
    from zdm_ml.data.rotation import rotate
    from zdm_ml.params import load_params

    settings = load_settings()
    params = load_params(settings.root / "params.yaml")
    champion, trained_on = _champion(settings)
    with counting("recognising castings") as progress:
        rotation, version = rotate(settings, params, trained_on, apply=apply, progress=progress)
    table = Table("class", "tests now", "fresh", "missing")
    for label, retired in rotation.retired.items():
        counts = (len(retired), len(rotation.fresh[label]), rotation.missing[label])
        table.add_row(str(label), *map(str, counts))
    console.print(table)
    unseen = f"version {champion}, the champion, has not trained on it and " if champion else ""
    console.print(f"fresh: {unseen}it does not test now", markup=False)
    if version is not None:
        console.print(f"they test from data version {version.commit[:12]} on", markup=False)
    elif any(rotation.missing.values()):
        console.print("next: bring in new castings, and rotate before the next retraining")
    else:
        console.print("next: `zdm data rotate-test --apply`", markup=False)
    if as_json:
        emit(
            {
                "champion": champion,
                "fresh": rotation.fresh,
                "retired": rotation.retired,
                "missing": rotation.missing,
                "version": version.commit if version else None,
            }
        )


def _champion(settings: Settings) -> tuple[str | None, frozenset[str]]:
    """Return the champion's version and the castings it learned from; nothing without one."""
    from zdm_ml.registry.package import read_info
    from zdm_ml.registry.versions import champion, download_package

    found = champion(settings.mlflow_uri)
    if found is None:
        return None, frozenset()
    home = make_home(settings.home)
    with tempfile.TemporaryDirectory(dir=home, prefix=".champion-") as temporary:
        folder = download_package(settings.mlflow_uri, found.version, Path(temporary) / "package")
        return found.version, read_info(folder).trained_on
