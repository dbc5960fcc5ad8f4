import time
from dataclasses import replace
from pathlib import Path

import pytest

from zdm_ml.models.catalogue import describe
from zdm_ml.params import load_params

ROOT = Path(__file__).parents[2]


def test_parameters_are_those_of_the_reference_recipe():
    parameters = {row["name"]: row["parameters"] for row in describe()}

    assert parameters == {
        "luna": 115_088,
        "alexnet": 57_012_034,
        "resnet18": 11_177_538,
        "efficientnet_v2_s": 20_180_050,
        "convnext_tiny": 27_821_666,
        "vit_b_16": 85_800_194,
        "swin_t": 27_520_892,
        "dino_vits8": 21_671_042,
    }


def test_every_row_has_the_stable_keys_and_a_licence():
    rows = describe()

    for row in rows:
        stable = {"name", "family", "parameters", "trainable", "input_size", "weights"}
        assert stable <= set(row)
        assert row["licence"]
    assert {row["family"] for row in rows} == {"scratch", "CNN", "transformer"}


def test_params_decide_size_and_trainable_parameters():
    params = load_params(ROOT / "params.yaml")
    resnet = replace(params.models["resnet18"], input_size=96, transfer="feature_extraction")

    (row,) = describe(replace(params, models={"resnet18": resnet}))

    assert row["input_size"] == 96
    assert row["trainable"] == 512 * 2 + 2


@pytest.mark.parametrize(
    ("recipe", "parameters", "input_size"),
    [("reference", 115_088, 300), ("modern", 148_722, 96)],
)
def test_the_recipe_in_params_decides_the_form_of_the_net_and_its_size(
    recipe: str, parameters: int, input_size: int
):
    params = load_params(ROOT / "params.yaml", recipe=recipe)
    luna = replace(params.models["luna"], input_size=96)

    (row,) = describe(replace(params, models={"luna": luna}))

    assert (row["parameters"], row["input_size"]) == (parameters, input_size)


def test_the_list_is_made_without_building_the_nets_in_memory():
    started = time.process_time()

    describe()

    assert time.process_time() - started < 5
