"""`zdm data`: import castings, take in new ones, list and compare data versions."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from zdm_ml.cli.app import app, console, counting, emit
from zdm_ml.errors import DataError
from zdm_ml.settings import Settings, load_settings, make_home

if TYPE_CHECKING:
    from zdm_ml.data.importing import Imported

SHOWN_REASONS = 10

data_app = typer.Typer(
    help="Import castings, audit them, list and compare their versions.", no_args_is_help=True
)
app.add_typer(data_app, name="data")


@data_app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="A zip, a folder, `kaggle` or `synthetic`.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
    parts: Annotated[int, typer.Option(min=4, help="Synthetic: castings to render.")] = 60,
    views: Annotated[int, typer.Option(min=1, help="Synthetic: images per casting.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Synthetic: seed.")] = 0,
) -> None:
    """Verify images and make them the newest data version."""
    result = import_source(load_settings(), source, parts=parts, views=views, seed=seed)
    if as_json:
        emit(result)


def import_source(
    settings: Settings, source: str, *, parts: int = 60, views: int = 10, seed: int = 0
) -> dict[str, object]:
    """Import a source, report on stderr, and return what `--json` prints."""
    from zdm_ml.data.importing import import_data
    from zdm_ml.params import load_params

    params = load_params(settings.root / "params.yaml")
    with tempfile.TemporaryDirectory(prefix="zdm-import-") as scratch:
        if source == "synthetic":
            folder = _render(settings, parts=parts, views=views, seed=seed)
        else:
            folder = _find(source, Path(scratch))
        with counting("verifying images, recognising castings") as progress:
            imported = import_data(settings, folder, params, progress=progress)
    _report(imported)
    return {
        "images": imported.staged.images,
        "quarantined": len(imported.staged.quarantined),
        "per_split": imported.staged.per_split,
        "castings": imported.census.castings,
        "data_md5": imported.version.md5,
        "version": imported.version.commit,
        "changed": imported.changed,
    }


def _render(settings: Settings, *, parts: int, views: int, seed: int) -> Path:
    """Render castings into the state folder, where their masks and part ids stay."""
    from zdm_ml.data.synthetic import make_synthetic

    folder = make_home(settings.home) / "synthetic" / f"{parts}x{views}-seed{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    with counting("rendering castings") as progress:
        make_synthetic(folder, parts=parts, views=views, seed=seed, progress=progress)
    console.print(f"rendered castings with masks and part ids: {folder}", markup=False)
    return folder


def _find(source: str, scratch: Path) -> Path:
    if source == "kaggle":
        from zdm_ml.data.kaggle import download_kaggle

        return download_kaggle(scratch / "kaggle")
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(
            f"{path} does not exist", hint="name a zip, a folder, `kaggle` or `synthetic`"
        )
    return path


def _report(imported: Imported) -> None:
    from zdm_ml.data.identity import OFFICIAL_MD5

    staged, version = imported.staged, imported.version
    table = Table("split", "defect", "ok")
    for split, counts in staged.per_split.items():
        table.add_row(split, str(counts["defect"]), str(counts["ok"]))
    console.print(table)
    where = f", kept in {staged.quarantine}" if staged.quarantine else ""
    console.print(
        f"{staged.images} images, {len(staged.quarantined)} quarantined{where}", markup=False
    )
    for bad in staged.quarantined[:SHOWN_REASONS]:
        console.print(f"  quarantined {bad.path}: {bad.reason}", markup=False)
    _report_castings(imported)
    official = "  (official Kaggle set)" if version.md5 == OFFICIAL_MD5 else ""
    console.print(f"DVC hash {version.md5}{official}", markup=False)
    done = "new data version" if imported.changed else "nothing new: this is already data version"
    console.print(f"{done} {version.commit[:12]} on branch zdm/data", markup=False)


def _report_castings(imported: Imported) -> None:
    castings = imported.census.castings
    shares = ", ".join(f"{count} {label}" for label, count in castings.items() if count)
    console.print(f"{sum(castings.values())} castings ({shares})", markup=False)
    if not imported.dealt:
        console.print("  next: more castings of each class, or split.protocol kfold", markup=False)


@data_app.command()
def checkout(
    version: Annotated[
        str, typer.Argument(help="latest, a commit of branch zdm/data, or a DVC hash.")
    ] = "latest",
) -> None:
    """Put a data version's images and castings list into this checkout, verified."""
    from zdm_ml.data.checkout import checkout_version

    found = checkout_version(load_settings(), version)
    console.print(f"data version {found.commit[:12]}: {found.message}", markup=False)
