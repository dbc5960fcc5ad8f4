import io
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from recipes import STILL

from zdm_ml.data.augment import Augmenter
from zdm_ml.models import zoo
from zdm_ml.models.net import LoadedNet, NetSpec
from zdm_ml.models.scoring import ScoringModule, preprocess, to_input

SMOKE = {"luna": 64, "resnet18": 32, "vit_b_16": 32, "swin_t": 32}
LARGER = {"alexnet": 64, "efficientnet_v2_s": 32, "convnext_tiny": 32, "dino_vits8": 32}


@dataclass(frozen=True)
class Input:
    input_size: int = 32
    mean: float = 0.5643
    std: float = 0.2386
    standardise: bool = False


STANDARDISED = Input(standardise=True)


def smoke_net(name: str, size: int, recipe: str = "reference") -> LoadedNet:
    """A random net whose head is not the zeros that ViTs begin with, so that scores differ."""
    torch.manual_seed(0)
    net = zoo.build(name, size, recipe=recipe).eval().requires_grad_(False)
    torch.nn.init.normal_(net.get_submodule(zoo.architecture(name).head).weight, std=0.05)
    start = (name, ("ok", "defect"), size, 0.56, 0.24, "scratch", None, "full", "smoke")
    spec = NetSpec(*start, recipe, standardise=recipe == "modern")
    return LoadedNet(spec, net, torch.device("cpu"))


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.integers(1, 40),
    n=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_preprocess_gives_three_equal_channels_within_the_range_of_normalised_greys(
    height: int, width: int, size: int, n: int
):
    inputs = preprocess(random_images(n, 1, height, width), spec := Input(size))

    assert inputs.shape == (n, 3, size, size)
    assert inputs.dtype == torch.float32
    assert inputs[:, 0].equal(inputs[:, 1])
    assert inputs[:, 0].equal(inputs[:, 2])
    low, high = -spec.mean / spec.std, (1 - spec.mean) / spec.std
    assert low - 1e-4 <= inputs.min() <= inputs.max() <= high + 1e-4


def test_preprocess_at_the_nets_own_size_only_normalises():
    images = random_images(2, 1, 32, 32)

    inputs = preprocess(images, Input())

    expected = (images[:, 0].float() / 255 - 0.5643) / 0.2386
    torch.testing.assert_close(inputs[:, 1], expected)


def test_standardised_pictures_have_mean_0_and_deviation_1():
    inputs = preprocess(random_images(5, 1, 50, 40), STANDARDISED)

    torch.testing.assert_close(inputs.mean((2, 3)), torch.zeros(5, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(inputs.std((2, 3)), torch.ones(5, 3), atol=1e-4, rtol=0)


@given(brightness=st.floats(-1.5, 1.5), contrast=st.floats(0.25, 4.0), seed=st.integers(0, 20))
@settings(deadline=None)
def test_any_brightness_and_contrast_of_a_picture_give_the_same_standardised_input(
    brightness: float, contrast: float, seed: int
):
    grey = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(seed))

    inputs = to_input(contrast * grey + brightness, standardise=True)

    torch.testing.assert_close(inputs, to_input(grey, standardise=True), atol=1e-5, rtol=1e-4)


def test_light_that_does_not_clip_changes_nothing_of_a_standardised_photograph():
    images = torch.randint(60, 100, (3, 1, 50, 40), dtype=torch.uint8)

    inputs = [preprocess(lit, STANDARDISED) for lit in (images, images * 2, images + 50)]

    torch.testing.assert_close(inputs[1], inputs[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(inputs[2], inputs[0], atol=1e-4, rtol=1e-4)


def test_pictures_of_a_batch_are_standardised_each_by_itself():
    images = random_images(3, 1, 32, 32)
    images[1] //= 4

    together = preprocess(images, STANDARDISED)

    alone = torch.cat([preprocess(image[None], STANDARDISED) for image in images])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("level", [0, 90, 255])
def test_an_even_picture_stays_even_and_finite(level: int):
    inputs = preprocess(torch.full((2, 1, 50, 40), level, dtype=torch.uint8), STANDARDISED)

    assert inputs.abs().max() < 1e-3


def test_a_single_odd_level_in_an_even_picture_is_not_blown_up():
    image = torch.full((1, 1, 32, 32), 100, dtype=torch.uint8)
    image[0, 0, 5, 5] = 101

    inputs = preprocess(image, STANDARDISED)

    assert 0 < inputs.max() < 2


@pytest.mark.parametrize("standardise", [False, True])
def test_a_net_sees_in_training_what_it_sees_later(standardise: bool):
    spec = Input(standardise=standardise)
    images = random_images(4, 1, 32, 32)
    places = np.arange(4)

    with Augmenter(STILL, 0, mean=spec.mean, std=spec.std) as augmenter:
        shown, _ = augmenter.batch(images[:, 0].numpy(), places % 2, 1, places)
    inputs = to_input(torch.from_numpy(shown).unsqueeze(1), standardise=standardise)

    torch.testing.assert_close(inputs, preprocess(images, spec), atol=1e-5, rtol=1e-5)


def test_preprocess_resizes_as_pillow_does_within_a_grey_level():
    image = random_images(300, 280)

    inputs = preprocess(image[None, None], Input(64, mean=0, std=1))

    resized = Image.fromarray(image.numpy()).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.abs(inputs[0, 0].numpy() * 255 - np.asarray(resized)).max() <= 1


@pytest.mark.parametrize("spec", [Input(), STANDARDISED])
def test_preprocess_does_not_copy_the_channels(spec: Input):
    inputs = preprocess(random_images(1, 1, 40, 40), spec)

    assert inputs.stride(1) == 0


def test_the_scoring_module_takes_images_with_and_without_a_channel():
    loaded = smoke_net("luna", 64)
    module = ScoringModule(loaded.net, loaded.spec)
    images = random_images(3, 50, 60)

    with torch.inference_mode():
        assert module(images).equal(module(images[:, None]))


@pytest.mark.parametrize("name", SMOKE)
def test_the_exported_module_scores_images_of_any_size_as_the_net_does(name: str):
    check_export(smoke_net(name, SMOKE[name]))


def test_the_exported_modern_net_standardises_and_turns_as_the_net_does():
    check_export(smoke_net("luna", 64, "modern"))


@pytest.mark.integration
@pytest.mark.parametrize("name", LARGER)
def test_the_larger_exported_modules_score_as_their_nets_do(name: str):
    check_export(smoke_net(name, LARGER[name]))


def test_an_exported_module_survives_its_file():
    loaded = smoke_net("luna", 64)
    stored = io.BytesIO()
    torch.export.save(export(loaded), stored)
    stored.seek(0)

    module = torch.export.load(stored).module()

    images = random_images(3, 90, 110)
    np.testing.assert_allclose(module(images), loaded.scores(list(images.numpy())), atol=1e-5)


def check_export(loaded: LoadedNet) -> None:
    module = export(loaded).module()

    for shape in ((1, 300, 300), (3, 64, 50), (2, 20, 33), (1, 32, 32)):
        images = random_images(*shape)
        expected = loaded.scores(list(images.numpy()))
        np.testing.assert_allclose(module(images).numpy(), expected, atol=1e-5, rtol=0)


def export(loaded: LoadedNet) -> torch.export.ExportedProgram:
    anywhere = (
        torch.export.Dim("n", min=1),
        torch.export.Dim("h", min=8),
        torch.export.Dim("w", min=8),
    )
    return torch.export.export(
        ScoringModule(loaded.net, loaded.spec).eval(),
        (random_images(2, 300, 280),),
        dynamic_shapes=(dict(enumerate(anywhere)),),
    )
