"""`zdm data lockbox` and `zdm experiment lockbox`: castings set aside, and scored once."""

from __future__ import annotations

from typing import Annotated

import typer

from zdm_ml.cli.app import console, counting, emit
from zdm_ml.cli.data import data_app
from zdm_ml.cli.experiments import Json, Models, Profile, experiment_app, finish, listed, open_here
from zdm_ml.cli.figures import protocol_table
from zdm_ml.settings import load_settings


@data_app.command("lockbox")
def set_aside(
    share: Annotated[
        float, typer.Option(min=0.05, max=0.5, help="Of the castings of each class.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Draws the castings.")] = 0,
    as_json: Json = False,
) -> None:
    """Set castings aside, before the first experiment, for one scoring after the last."""
    from zdm_ml.data import lockbox
    from zdm_ml.params import load_params

    settings = load_settings()
    params = load_params(settings.root / "params.yaml")
    with counting("recognising castings") as progress:
        locked = lockbox.set_aside(settings, params, share=share, seed=seed, progress=progress)
    castings, images = locked.census.castings, locked.census.images
    console.print(
        f"lockbox: {castings['ok']} good and {castings['defect']} defective castings "
        f"({sum(images.values())} images) are on no side from data version "
        f"{locked.version.commit[:12]} on",
        markup=False,
    )
    if as_json:
        emit({"castings": castings, "images": images, "version": locked.version.commit})


@experiment_app.command("lockbox")
def score(names: Models = "luna", profile: Profile = "full", as_json: Json = False) -> None:
    """Train on every casting outside the lockbox and test on those in it; each look is counted."""
    from zdm_ml.pipeline.cross_validation import score_lockbox

    bench, models = open_here(profile), listed(names)
    result = score_lockbox(bench, models)
    console.print(protocol_table(result["models"]))
    if result["looks"] > 1:
        console.print(
            f"look {result['looks']} into this lockbox: a choice made after the first one has "
            "seen these castings",
            style="yellow",
            markup=False,
        )
    finish(bench, "-".join(("lockbox", profile, *models)), result, as_json)
