from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from zdm_ml.errors import ConfigError
from zdm_ml.params import load_params, parse_params


@pytest.fixture
def raw(project: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((project / "params.yaml").read_text())
    return copy.deepcopy(values)


def put(raw: dict[str, Any], path: str, value: object) -> None:
    """Set what a dotted path names."""
    *sections, key = path.split(".")
    for section in sections:
        raw = raw[section]
    raw[key] = value


def test_the_projects_params_are_valid_and_hold_the_published_recipe(project: Path) -> None:
    params = load_params(project / "params.yaml")

    recipe = params.named_recipe("reference", "luna", scratch=True)
    assert (recipe.input_size, recipe.epochs, recipe.batch_size) == (300, 50, 16)
    assert (recipe.learning_rate, recipe.gamma, recipe.keep) == (1e-3, 0.9, "best")
    assert params.named_recipe("reference", "resnet18", scratch=False).learning_rate == 2e-5


def test_a_model_is_trained_by_the_chosen_recipe(raw: dict[str, Any]) -> None:
    raw["train"]["recipe"] = "reference"
    params = parse_params(raw, "params.yaml")

    recipe = params.recipe("luna", scratch=True)

    assert recipe == params.named_recipe("reference", "luna", scratch=True)
    assert recipe.name == "reference"


def test_another_recipe_can_take_the_place_of_the_files(project: Path) -> None:
    for name in ("reference", "modern"):
        params = load_params(project / "params.yaml", recipe=name)

        assert params.recipe("luna", scratch=True).name == params.raw["train"]["recipe"] == name


def test_an_unknown_key_is_named_with_its_section(raw: dict[str, Any]) -> None:
    raw["recipes"]["modern"]["augment"]["blur"] = 0.5

    with pytest.raises(ConfigError, match=r"recipes\.modern\.augment\.blur"):
        parse_params(raw, "params.yaml")


def test_a_missing_key_is_named_with_its_section(raw: dict[str, Any]) -> None:
    del raw["split"]["val"]

    with pytest.raises(ConfigError, match=r"missing key 'split\.val'"):
        parse_params(raw, "params.yaml")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.recipe", "ancient"),
        ("train.precision", "fp64"),
        ("train.views", 1.5),
        ("recipes.modern.batch_size", "16"),
        ("recipes.modern.mean", True),
        ("recipes.modern.standardise", 1),
        ("recipes.modern.sampling", "classes"),
        ("recipes.modern.images_per_epoch", "all"),
        ("recipes.modern.optimizer", "sgd"),
        ("recipes.modern.schedule", "cosine"),
        ("recipes.modern.keep", "first"),
        ("recipes.modern.augment.paste", "often"),
        ("recipes.reference.scratch.epochs", 1.5),
        ("models.luna.recipes.reference.input_size", "300"),
        ("audit.max_pixels", 2.5),
    ],
)
def test_a_wrong_type_is_named_with_what_was_found(
    raw: dict[str, Any], path: str, value: object
) -> None:
    put(raw, path, value)

    with pytest.raises(ConfigError, match=rf"{re.escape(path)}: expected .* found"):
        parse_params(raw, "params.yaml")


@pytest.mark.parametrize("recipe", ["reference", "modern"])
@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("batch_size", 1, "batch_size: at least 2"),
        ("std", 0.0, "std: above 0"),
        ("images_per_epoch", 1, "images_per_epoch: at least 2"),
        ("images_per_epoch", 0, "images_per_epoch: at least 2"),
        ("label_smoothing", 1.0, "label_smoothing: at least 0 and below 1"),
        ("label_smoothing", -0.1, "label_smoothing: at least 0"),
        ("averaging", 1.0, "averaging: at least 0 and below 1"),
        ("averaging", -0.1, "averaging: at least 0"),
        ("augment.paste", 0.5, r"augment\.paste: below 0\.5"),
        ("augment.paste", -0.1, "augment: chances between 0 and 1"),
        ("augment.horizontal_flip", 1.1, "augment: chances between 0 and 1"),
        ("augment.vertical_flip", -0.1, "augment: chances between 0 and 1"),
        ("augment.stretch", 1.0, "augment: changes at least 0 and below 1"),
        ("augment.jitter", -0.1, "augment: changes at least 0 and below 1"),
        ("augment.gamma", 1.0, "augment: changes at least 0 and below 1"),
        ("augment.lighting", -0.1, "augment: changes at least 0 and below 1"),
        ("augment.translate", 1.0, "augment: changes at least 0 and below 1"),
        ("augment.scale", [1.0], r"augment\.scale: two numbers above 0"),
        ("augment.scale", [1.1, 0.9], r"augment\.scale: two numbers above 0"),
        ("augment.scale", [0.0, 1.0], r"augment\.scale: two numbers above 0"),
        ("finetune.epochs", 0, r"finetune\.epochs, scratch\.epochs: at least 1"),
        ("scratch.epochs", 0, r"finetune\.epochs, scratch\.epochs: at least 1"),
    ],
)
def test_a_value_that_no_training_can_use_is_named_with_its_recipe(
    raw: dict[str, Any], recipe: str, key: str, value: object, problem: str
) -> None:
    put(raw, f"recipes.{recipe}.{key}", value)

    with pytest.raises(ConfigError, match=rf"params\.yaml: recipes\.{recipe}\.{problem}"):
        parse_params(raw, "params.yaml")


@pytest.mark.parametrize("section", ["recipes.modern", "models.luna.recipes.modern"])
@pytest.mark.parametrize(("crossfit", "keep"), [(1, "last"), (-2, "last"), (4, "best")])
def test_cross_fitting_that_cannot_be_is_named_with_its_model(
    raw: dict[str, Any], section: str, crossfit: int, keep: str
) -> None:
    raw["models"]["luna"]["recipes"] = {"modern": {}}
    put(raw, f"{section}.crossfit", crossfit)
    raw["recipes"]["modern"]["keep"] = keep

    with pytest.raises(ConfigError, match=rf"crossfit {crossfit} of luna under recipe modern"):
        parse_params(raw, "params.yaml")


def test_no_views_are_refused(raw: dict[str, Any]) -> None:
    raw["train"]["views"] = 0

    with pytest.raises(ConfigError, match=r"train\.views: at least 1"):
        parse_params(raw, "params.yaml")


@pytest.mark.parametrize("missing", ["reference", "modern"])
def test_both_recipes_are_needed(raw: dict[str, Any], missing: str) -> None:
    del raw["recipes"][missing]

    with pytest.raises(ConfigError, match="recipes: exactly modern, reference"):
        parse_params(raw, "params.yaml")


@pytest.mark.parametrize("recipe", ["reference", "modern"])
def test_a_model_overrides_single_keys_of_both_recipes(raw: dict[str, Any], recipe: str) -> None:
    raw["models"]["resnet18"]["scratch"] = {"epochs": 3}

    params = parse_params(raw, "params.yaml")

    found = params.named_recipe(recipe, "resnet18", scratch=True)
    assert (found.epochs, found.gamma) == (3, raw["recipes"][recipe]["scratch"]["gamma"])
    assert params.named_recipe(recipe, "resnet18", scratch=False).epochs != 3


def test_a_recipe_overrides_a_model_in_that_recipe_alone(raw: dict[str, Any]) -> None:
    raw["models"]["luna"].update(input_size=160, scratch={"epochs": 3, "gamma": 0.5})
    overrides = {"input_size": 96, "crossfit": 3, "scratch": {"epochs": 7}}
    raw["recipes"]["modern"]["crossfit"] = 0
    raw["models"]["luna"]["recipes"] = {"modern": overrides}

    params = parse_params(raw, "params.yaml")

    modern, reference = (
        params.named_recipe(recipe, "luna", scratch=True) for recipe in ("modern", "reference")
    )
    assert (modern.input_size, modern.crossfit, modern.epochs, modern.gamma) == (96, 3, 7, 0.5)
    assert (reference.input_size, reference.crossfit, reference.epochs) == (160, 0, 3)


def test_an_override_of_nothing_changes_nothing(raw: dict[str, Any]) -> None:
    del raw["models"]["luna"]["recipes"]
    expected = parse_params(copy.deepcopy(raw), "params.yaml")
    raw["models"]["luna"]["recipes"] = {"modern": {}}

    params = parse_params(raw, "params.yaml")

    assert params.recipe("luna", scratch=True) == expected.recipe("luna", scratch=True)


@pytest.mark.parametrize("section", ["models.luna", "models.luna.recipes.modern"])
def test_an_unknown_recipe_key_of_a_model_is_named(raw: dict[str, Any], section: str) -> None:
    put(raw, f"{section}.scratch", {"momentum": 0.9})

    with pytest.raises(ConfigError, match=r"models\.luna\.scratch.*momentum"):
        parse_params(raw, "params.yaml")


def test_what_a_recipe_cannot_override_is_named(raw: dict[str, Any]) -> None:
    raw["models"]["luna"]["recipes"] = {"modern": {"transfer": "partial"}}

    with pytest.raises(ConfigError, match=r"models\.luna\.recipes\.modern\.transfer"):
        parse_params(raw, "params.yaml")


def test_a_model_that_does_not_exist_is_named(raw: dict[str, Any]) -> None:
    raw["models"]["lunna"] = raw["models"].pop("luna")

    with pytest.raises(ConfigError, match=r"models\.lunna: no such model, only luna"):
        parse_params(raw, "params.yaml")


def test_a_models_keys_for_a_recipe_that_does_not_exist_are_named(raw: dict[str, Any]) -> None:
    raw["models"]["luna"]["recipes"] = {"modem": {"scratch": {"epochs": 3}}}

    with pytest.raises(ConfigError, match=r"models\.luna\.recipes\.modem: no such recipe"):
        parse_params(raw, "params.yaml")


def test_shares_that_leave_nothing_to_train_on_are_refused(raw: dict[str, Any]) -> None:
    raw["split"].update(val=0.6, calibration=0.5)

    with pytest.raises(ConfigError, match=r"split\.val"):
        parse_params(raw, "params.yaml")


@pytest.mark.parametrize(
    ("section", "changes", "problem"),
    [
        ("split", {"test": 0.7}, r"split\.val"),
        ("split", {"calibration": 0.0}, "each above 0"),
        ("split", {"folds": 1}, r"split\.folds"),
        ("split", {"fold": 5}, r"split\.fold"),
        ("split", {"protocol": "random"}, r"split\.protocol"),
        ("split", {"remember": "yes"}, r"split\.remember"),
        ("audit", {"part_pattern": 3}, r"audit\.part_pattern"),
        ("evaluate", {"confidence": 0.4}, r"evaluate\.confidence"),
        ("evaluate", {"resamples": 10}, r"evaluate\.resamples"),
        ("evaluate", {"perturbation_limit": "all"}, r"evaluate\.perturbation_limit"),
        ("saliency", {"castings": -1}, r"saliency\.castings"),
        ("saliency", {"images": -1}, r"saliency\.images"),
        ("saliency", {"maps": 1.5}, r"saliency\.maps"),
        ("saliency", {"floor": 0.0}, r"saliency\.floor"),
        ("saliency", {"threshold": 1.1}, r"saliency\.threshold"),
        ("saliency", {"tolerance": 1.0}, r"saliency\.tolerance"),
        ("saliency", {"steps": 1}, r"saliency\.steps"),
    ],
)
def test_a_value_that_no_split_or_evaluation_can_use_is_named(
    raw: dict[str, Any], section: str, changes: dict[str, Any], problem: str
) -> None:
    raw[section].update(changes)

    with pytest.raises(ConfigError, match=problem):
        parse_params(raw, "params.yaml")


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train: [")

    with pytest.raises(ConfigError, match=r"params\.yaml is not valid YAML"):
        load_params(path)


def test_only_full_models_need_an_approval_by_default(project: Path) -> None:
    promote = load_params(project / "params.yaml").promote

    assert promote.require_approval == {"full": True, "quick": False, "smoke": False}
    assert promote.approvers


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("require_approval", {"quick": True}, "require_approval: true or false for profile 'full'"),
        ("require_approval", {"full": "yes"}, r"require_approval\.full: expected true or false"),
        ("require_approval", True, "require_approval: expected a mapping"),
        ("approvers", [], "approvers: at least one name"),
        ("approvers", ["anna", " "], "approvers: at least one name, none empty"),
        ("approvers", ["anna", "anna"], "approvers: at least one name, none empty, none twice"),
        ("approvers", "anna", "approvers: expected a list"),
        ("approval_hours", 0, "approval_hours: above 0"),
        ("approval_hours", float("inf"), "approval_hours: above 0 and at most 8760"),
        ("approval_hours", float("nan"), "approval_hours: above 0"),
    ],
)
def test_an_approval_that_nobody_could_give_is_named(
    raw: dict[str, Any], key: str, value: object, problem: str
) -> None:
    raw["promote"][key] = value

    with pytest.raises(ConfigError, match=rf"promote\.{problem}"):
        parse_params(raw, "params.yaml")
