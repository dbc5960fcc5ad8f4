from __future__ import annotations

import copy
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


def test_the_projects_params_are_valid_and_hold_the_reference_recipe(project: Path) -> None:
    params = load_params(project / "params.yaml")

    assert params.recipe("resnet18", scratch=False).learning_rate == 2e-5
    assert params.recipe("luna", scratch=True).epochs == 50


def test_an_unknown_key_is_named_with_its_section(raw: dict[str, Any]) -> None:
    raw["train"]["batchsize"] = 16

    with pytest.raises(ConfigError, match=r"train\.batchsize"):
        parse_params(raw, "params.yaml")


def test_a_missing_key_is_named_with_its_section(raw: dict[str, Any]) -> None:
    del raw["split"]["val"]

    with pytest.raises(ConfigError, match=r"missing key 'split\.val'"):
        parse_params(raw, "params.yaml")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("train", "batch_size", "16"),
        ("train", "mean", True),
        ("train", "precision", "fp64"),
        ("audit", "max_pixels", 2.5),
    ],
)
def test_a_wrong_type_is_named_with_what_was_found(
    raw: dict[str, Any], section: str, key: str, value: object
) -> None:
    raw[section][key] = value

    with pytest.raises(ConfigError, match=rf"{section}\.{key}: expected .* found"):
        parse_params(raw, "params.yaml")


def test_a_model_overrides_single_keys_of_the_recipe(raw: dict[str, Any]) -> None:
    raw["models"]["luna"]["scratch"] = {"epochs": 3}

    recipe = parse_params(raw, "params.yaml").recipe("luna", scratch=True)

    assert (recipe.epochs, recipe.gamma) == (3, 0.9)


def test_an_unknown_recipe_key_of_a_model_is_named(raw: dict[str, Any]) -> None:
    raw["models"]["luna"]["scratch"] = {"momentum": 0.9}

    with pytest.raises(ConfigError, match=r"models\.luna\.scratch.*momentum"):
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
