from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from zdm_ml.errors import ConfigError
from zdm_ml.params import parse_params
from zdm_ml.pipeline.profiles import overlay, profile_names, run_params


def test_every_profile_gives_valid_params_that_carry_its_name(project: Path) -> None:
    text = (project / "params.yaml").read_text()

    for name in profile_names(project):
        params = parse_params(yaml.safe_load(overlay(text, project, name)), name)

        assert params.profile == name


@pytest.mark.parametrize("recipe", ["reference", "modern"])
def test_quick_and_smoke_make_every_model_of_both_recipes_cheaper(
    project: Path, recipe: str
) -> None:
    text = (project / "params.yaml").read_text()

    costs = {}
    for name in ("full", "quick", "smoke"):
        params = parse_params(yaml.safe_load(overlay(text, project, name)), name)
        for model in params.models:
            found = params.named_recipe(recipe, model, scratch=True)
            costs[model, name] = (
                found.input_size**2
                * found.epochs
                * (found.images_per_epoch or params.split.train_limit or 10_000)
                * (found.crossfit + 1)
            )

    for model in params.models:
        assert costs[model, "smoke"] < costs[model, "quick"] < costs[model, "full"]


def test_an_overlay_keeps_the_comments(project: Path) -> None:
    text = (project / "params.yaml").read_text()

    quick = overlay(text, project, "quick")

    assert "# What decisions cost" in quick


def test_an_unknown_profile_is_refused_with_the_known_ones(project: Path) -> None:
    with pytest.raises(ConfigError, match="full, quick, smoke"):
        overlay("profile: full", project, "fast")


def test_full_is_refused_where_a_profile_overwrote_the_values(project: Path) -> None:
    quick = overlay((project / "params.yaml").read_text(), project, "quick")

    with pytest.raises(ConfigError, match="git checkout"):
        overlay(quick, project, "full")


def test_a_run_holds_only_the_models_it_was_asked_for(project: Path) -> None:
    text = (project / "params.yaml").read_text()

    chosen = run_params(text, project, profile="quick", models=["resnet18", "luna"], seed=7)

    params = parse_params(yaml.safe_load(chosen), "run")
    assert list(params.models) == ["luna", "resnet18"]
    assert params.seed == 7


def test_an_unknown_model_is_refused_by_name(project: Path) -> None:
    text = (project / "params.yaml").read_text()

    with pytest.raises(ConfigError, match="vgg16"):
        run_params(text, project, profile="quick", models=["vgg16"])


def test_a_profile_fits_a_checkout_that_trains_fewer_models(project: Path) -> None:
    text = (project / "params.yaml").read_text()
    fewer = run_params(text, project, profile="full", models=["luna"])

    quick = overlay(fewer, project, "quick")

    assert list(yaml.safe_load(quick)["models"]) == ["luna"]
