"""`zdm explain`: where in an image a model sees the defect, if its heat maps are worth showing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zdm_ml.cli.app import app, console
from zdm_ml.cli.serving import ModelOption
from zdm_ml.errors import DataError, PackageError
from zdm_ml.settings import load_settings

if TYPE_CHECKING:
    from zdm_ml.loading import Inspector


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(help="A JPEG or PNG image of a casting.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    model: ModelOption = "champion",
    anyway: Annotated[
        bool, typer.Option(help="Draw it without a licence too, and mark it as not licensed.")
    ] = False,
) -> None:
    """Draw what a model sees in an image; refused where its heat maps have no licence."""
    from zdm_ml.loading import load_inspector

    inspector = load_inspector(model, load_settings())
    licence = inspector.map_licence
    if not (licence.licensed or anyway):
        raise PackageError(
            f"{model} ({inspector.net.spec.model_name}) shows no heat map: {licence.reason}",
            hint="name a model with a licence, measure this one with stage `evaluate`, or look at"
            " the map all the same with --anyway, which marks it as not licensed",
        )
    verdict = _draw(inspector, image, out)
    console.print(f"{verdict}; {out} shows where", markup=False)


def _draw(inspector: Inspector, image: Path, out: Path) -> str:
    """Write the picture of one image; return the verdict in words."""
    from zdm_ml.data.images import decode_grey
    from zdm_ml.evaluation.overlay import Finding, overlay
    from zdm_ml.evaluation.saliency import heat_map
    from zdm_ml.files import write_bytes
    from zdm_ml.serving.config import Limits
    from zdm_ml.serving.predictor import Predictor, Refusal

    pixels = Limits().pixels
    (judgement,) = Predictor(inspector.net, inspector.ruling, max_pixels=pixels).judge([image])
    if isinstance(judgement, Refusal):
        raise DataError(f"{image}: {judgement.detail}", hint="name a readable JPEG or PNG image")
    grey = decode_grey(image, max_pixels=pixels)
    name = f"{inspector.net.spec.model_name}, version {inspector.version}"
    finding = Finding(name, judgement.score, inspector.ruling.verdicts)
    picture = overlay(grey, heat_map(inspector.net, grey), finding, inspector.map_licence)
    write_bytes(out, picture)
    return f"{judgement.verdict}, score {judgement.score:.4f}"
