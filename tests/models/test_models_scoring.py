import io
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zdm_ml.models import zoo
from zdm_ml.models.net import LoadedNet, NetSpec
from zdm_ml.models.scoring import ScoringModule, preprocess

SMOKE = {"luna": 64, "resnet18": 32, "vit_b_16": 32, "swin_t": 32}
LARGER = {"alexnet": 64, "efficientnet_v2_s": 32, "convnext_tiny": 32, "dino_vits8": 32}


@dataclass(frozen=True)
class Input:
    input_size: int = 32
    mean: float = 0.5643
    std: float = 0.2386


def smoke_net(name: str, size: int) -> LoadedNet:
    """A random net whose head is not the zeros that ViTs begin with, so that scores differ."""
    torch.manual_seed(0)
    net = zoo.build(name, size).eval().requires_grad_(False)
    torch.nn.init.normal_(net.get_submodule(zoo.architecture(name).head).weight, std=0.05)
    spec = NetSpec(name, ("ok", "defect"), size, 0.56, 0.24, "scratch", None, "full", "smoke")
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


def test_preprocess_resizes_as_pillow_does_within_a_grey_level():
    image = random_images(300, 280)

    inputs = preprocess(image[None, None], Input(64, mean=0, std=1))

    resized = Image.fromarray(image.numpy()).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.abs(inputs[0, 0].numpy() * 255 - np.asarray(resized)).max() <= 1


def test_preprocess_does_not_copy_the_channels():
    inputs = preprocess(random_images(1, 1, 40, 40), Input())

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
