"""`zdm serve` and `zdm predict`: judging castings, over HTTP or from files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import track

from zdm_ml.cli.app import app, console, emit
from zdm_ml.errors import DataError
from zdm_ml.settings import HOST, REGISTERED_MODEL, load_settings, make_home

if TYPE_CHECKING:
    from zdm_ml.loading import Inspector
    from zdm_ml.serving.predictor import Judgement, Refusal

MOST_WORKERS = 4

ModelOption = Annotated[
    str,
    typer.Option(help="champion, a version, a model name, or a package, net or run folder."),
]


@app.command()
def serve(
    poll_seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds between two looks at the champion alias.")
    ] = 2.0,
    pending: Annotated[
        int, typer.Option(min=1, help="Requests in work at a time; more get 503.")
    ] = 64,
    body_mib: Annotated[int, typer.Option(min=1, help="Largest body of one image.")] = 10,
) -> None:
    """Serve the champion on 127.0.0.1 until SIGTERM or Ctrl-C."""
    from zdm_ml.serving.config import MIB, Limits, ServingConfig
    from zdm_ml.serving.server import serve as run
    from zdm_ml.serving.source import RegistrySource

    settings = load_settings()
    cores = os.cpu_count() or 1
    workers = min(MOST_WORKERS, cores)
    config = ServingConfig(
        name=REGISTERED_MODEL,
        state=make_home(settings.home) / "serving",
        store_url=settings.store_url,
        poll_seconds=poll_seconds,
        workers=workers,
        torch_threads=max(1, cores // workers),
        limits=Limits(pending=pending, body_bytes=body_mib * MIB),
    )
    console.print(f"inference server: {settings.inference_url}", markup=False)
    run(config, RegistrySource(settings.mlflow_uri), host=HOST, port=settings.inference_port)


@app.command()
def predict(
    paths: Annotated[list[Path], typer.Argument(help="Images, or folders of images.")],
    model: ModelOption = "champion",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per image.")] = False,
) -> None:
    """Judge image files with the preprocessing and threshold that the server uses."""
    from zdm_ml.loading import load_inspector
    from zdm_ml.serving.config import Limits
    from zdm_ml.serving.predictor import Predictor, Refusal

    files = _files(paths)
    inspector = load_inspector(model, load_settings())
    predictor = Predictor(inspector.net, inspector.ruling, max_pixels=Limits().pixels)
    results = track(
        zip(files, predictor.judge(files), strict=True),
        "judging",
        total=len(files),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    refused = 0
    for file, result in results:
        refused += isinstance(result, Refusal)
        _show(file, result, inspector, as_json)
    console.print(
        f"{len(files) - refused} judged with version {inspector.version}, {refused} refused",
        markup=False,
    )
    if refused:
        raise typer.Exit(1)


def _show(file: Path, result: Judgement | Refusal, inspector: Inspector, as_json: bool) -> None:
    from zdm_ml.serving.predictor import Refusal

    if isinstance(result, Refusal):
        if as_json:
            emit({"path": str(file), "error": result.detail})
        else:
            typer.echo(f"refused         {file}: {result.detail}")
        return
    if as_json:
        emit(
            {
                "path": str(file),
                "verdict": result.verdict,
                "score": result.score,
                "threshold": inspector.ruling.threshold,
                "ok_below": inspector.ruling.verdicts.ok_below,
                "defect_from": inspector.ruling.verdicts.defect_from,
                "guarantee": inspector.ruling.statement,
                "model_version": inspector.version,
            }
        )
    else:
        typer.echo(f"{result.verdict:7} {result.score:.4f}  {file}")


def _files(paths: Sequence[Path]) -> list[Path]:
    """Return the files to judge; a path that does not exist stays in, to be reported as refused."""
    files = [file for path in paths for file in (_walk(path) if path.is_dir() else [path])]
    if not files:
        raise DataError(
            f"no files in {', '.join(map(str, paths))}", hint="name images or folders of images"
        )
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Yield every file below, hidden ones apart: an odd suffix must not hide a casting."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path
