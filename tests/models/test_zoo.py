from pathlib import Path

import pytest
import torch
import yaml

from zdm_ml.errors import ConfigError
from zdm_ml.models import zoo
from zdm_ml.params import parse_params
from zdm_ml.params_demands import MODEL_NAMES
from zdm_ml.pipeline.profiles import overlay, profile_names

ROOT = Path(__file__).parents[2]


FORMS = [
    (name, recipe)
    for name in zoo.MODEL_NAMES
    for recipe in ("reference", "modern")
    if recipe == "reference" or zoo.architecture(name).modern
]


def profile_sizes() -> list[tuple[str, int, str]]:
    """Return name, input size and form of all that a profile other than full trains."""
    text, found = (ROOT / "params.yaml").read_text(), set()
    for profile in set(profile_names(ROOT)) - {"full"}:
        params = parse_params(yaml.safe_load(overlay(text, ROOT, profile)), profile)
        for name in params.models:
            for recipe in params.recipes:
                size = params.named_recipe(recipe, name, scratch=True).input_size
                found.add((name, size, recipe if (name, recipe) in FORMS else "reference"))
    return sorted(found)


def test_the_zoo_holds_the_eight_models_that_params_know():
    assert zoo.MODEL_NAMES == MODEL_NAMES


@pytest.mark.parametrize(("name", "size", "recipe"), profile_sizes())
def test_each_model_trains_on_two_images_at_each_profile_size(name: str, size: int, recipe: str):
    net = zoo.build(name, size, recipe=recipe).train()

    logits = net(torch.rand(2, 3, size, size))
    logits.sum().backward()

    assert logits.shape == (2, 2)
    head = net.get_submodule(zoo.architecture(name).head)
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize(("name", "recipe"), FORMS)
def test_each_model_takes_its_smallest_and_its_reference_size(name: str, recipe: str):
    entry = zoo.architecture(name)

    for size in (entry.smallest, entry.reference_size):
        with torch.device("meta"):
            net = zoo.build(name, size, recipe=recipe).eval()
            logits = net(torch.rand(1, 3, size, size))
        assert logits.shape == (1, 2)


@pytest.mark.parametrize(("name", "recipe"), FORMS)
def test_each_form_of_a_model_ends_in_the_classes_and_has_the_blocks_of_partial(
    name: str, recipe: str
):
    entry = zoo.architecture(name)

    with torch.device("meta"):
        net = zoo.build(name, entry.reference_size, 5, recipe)

    head = net.get_submodule(entry.head)
    assert isinstance(head, torch.nn.Linear)
    assert head.out_features == 5
    assert all(list(net.get_submodule(block).parameters()) for block in entry.last)


def test_recipe_modern_builds_another_net_where_there_is_one():
    with torch.device("meta"):
        kinds = {
            name: [type(zoo.build(name, 64, recipe=form)) for form in ("reference", "modern")]
            for name in zoo.MODEL_NAMES
        }

    assert [name for name, (old, new) in kinds.items() if old is not new] == ["luna"]


def test_a_name_that_is_taken_cannot_be_registered_again():
    with pytest.raises(ValueError, match="'luna' is registered twice"):
        zoo.register(zoo.architecture("luna"))


def test_an_unknown_model_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match=r"unknown model 'resnet19'; known: luna, alexnet"):
        zoo.build("resnet19", 64)


@pytest.mark.parametrize(("name", "size"), [("vit_b_16", 300), ("dino_vits8", 28), ("luna", 8)])
def test_an_input_size_a_model_cannot_take_is_refused(name: str, size: int):
    with pytest.raises(ConfigError, match=f"{name} cannot take input_size {size}"):
        zoo.build(name, size)


def test_every_pretrained_torchvision_file_carries_its_hash_in_its_name():
    hashless = [
        name
        for name in zoo.MODEL_NAMES
        if (weights := zoo.architecture(name).weights) and not weights.sha256_prefix
    ]

    assert hashless == ["dino_vits8"]
