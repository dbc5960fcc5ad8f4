"""`zdm data`: import images, list their versions."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress
from rich.table import Table

from zdm_ml.cli.app import app, console, emit
from zdm_ml.errors import DataError
from zdm_ml.settings import Settings, load_settings

data_app = typer.Typer(help="Import castings and list their versions.", no_args_is_help=True)
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
    from zdm_ml.data.identity import OFFICIAL_MD5
    from zdm_ml.data.versions import import_data
    from zdm_ml.params import load_params

    max_pixels = load_params(settings.root / "params.yaml").audit.max_pixels
    with (
        tempfile.TemporaryDirectory(prefix="zdm-import-") as scratch,
        Progress(console=console, transient=True) as bar,
    ):
        task = bar.add_task("verifying images", total=None)
        folder = _obtain(source, Path(scratch), parts=parts, views=views, seed=seed)
        imported = import_data(
            settings,
            folder,
            max_pixels=max_pixels,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    staged, version = imported.staged, imported.version
    console.print(_table(staged.per_split))
    console.print(f"{staged.images} images, {len(staged.quarantined)} quarantined", markup=False)
    for bad in staged.quarantined[:10]:
        console.print(f"  quarantined {bad.path}: {bad.reason}", markup=False)
    official = "  (official Kaggle set)" if version.md5 == OFFICIAL_MD5 else ""
    console.print(f"DVC hash {version.md5}{official}", markup=False)
    done = "new data version" if imported.changed else "nothing new: this is already data version"
    console.print(f"{done} {version.commit[:12]} on branch zdm/data", markup=False)
    return {
        "images": staged.images,
        "quarantined": len(staged.quarantined),
        "per_split": staged.per_split,
        "data_md5": version.md5,
        "changed": imported.changed,
    }


def _obtain(source: str, scratch: Path, *, parts: int, views: int, seed: int) -> Path:
    if source == "synthetic":
        from zdm_ml.data.synthetic import make_synthetic

        make_synthetic(scratch / "synthetic", parts=parts, views=views, seed=seed)
        return scratch / "synthetic"
    if source == "kaggle":
        from zdm_ml.data.kaggle import download_kaggle

        return download_kaggle(scratch / "kaggle")
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(
            f"{path} does not exist", hint="name a zip, a folder, `kaggle` or `synthetic`"
        )
    free = shutil.disk_usage(scratch).free
    if path.is_file() and path.stat().st_size > free:
        raise DataError(f"{scratch} has too little space for {path}", hint="free some space")
    return path


def _table(per_split: dict[str, dict[str, int]]) -> Table:
    table = Table("split", "defect", "ok")
    for split, counts in per_split.items():
        table.add_row(split, str(counts.get("defect", 0)), str(counts.get("ok", 0)))
    return table


@data_app.command("log")
def log_(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the data versions, the newest first."""
    from dataclasses import asdict

    from zdm_ml.data.versions import versions

    for version in versions(load_settings().root):
        if as_json:
            emit(asdict(version))
        else:
            typer.echo(f"{version.commit[:12]}  {version.date}  {version.message}")
