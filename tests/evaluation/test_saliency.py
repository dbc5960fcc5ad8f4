"""Heat maps of all nets: of the image as it was given, and of what the net depends on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from zdm_ml.errors import DataError, PackageError
from zdm_ml.evaluation.map_quality import points_at, random_map
from zdm_ml.evaluation.saliency import Grey, heat_map
from zdm_ml.models import zoo
from zdm_ml.models.net import LoadedNet, NetSpec

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {"alexnet": 96, "dino_vits8": 32}
FORMS = [(name, "reference") for name in zoo.MODEL_NAMES] + [("luna", "modern")]


def loaded(name: str, net: nn.Module, size: int, recipe: str = "reference") -> LoadedNet:
    spec = NetSpec(
        name, ("ok", "defect"), size, 0.5, 0.25, "scratch", None, "full", "smoke", recipe
    )
    return LoadedNet(spec, net.requires_grad_(False).eval(), torch.device("cpu"))


def random_net(name: str, recipe: str = "reference") -> LoadedNet:
    """A net whose head is random too: torchvision begins with zeros in some."""
    torch.manual_seed(0)
    size = SIZES.get(name, 64)
    net = zoo.build(name, size, recipe=recipe)
    nn.init.normal_(net.get_submodule(zoo.architecture(name).head).weight)
    return loaded(name, net, size, recipe)


def turn_verdict(net: LoadedNet) -> None:
    """Make evidence for a defect evidence against it."""
    head = net.net.get_submodule(zoo.architecture(net.spec.model_name).head)
    with torch.no_grad():
        head.weight.neg_()


def noise(shape: tuple[int, int], seed: int = 0) -> Grey:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("name", "recipe"), FORMS)
def test_every_net_has_a_map_of_the_images_size_that_a_second_look_repeats(
    name: str, recipe: str
) -> None:
    net, image = random_net(name, recipe), noise((48, 56))

    heat = heat_map(net, image)
    again = heat_map(net, image)
    turn_verdict(net)
    against = heat_map(net, image)

    for found in (heat, against):
        assert (found.shape, found.dtype) == (image.shape, np.float32)
        assert np.isfinite(found).all()
        assert 0 <= found.min() <= found.max() <= 1
    assert np.array_equal(heat, again)
    # What speaks for the one verdict does not speak for the other, and something speaks.
    assert max(heat.max(), against.max()) == 1
    assert np.ptp(heat) + np.ptp(against) > 0
    assert not np.array_equal(heat, against)


def test_a_map_of_lunas_is_its_features_weighted_as_the_formula_says() -> None:
    net = random_net("luna")
    image = noise((64, 64))
    luna = net.net
    with torch.inference_mode():
        features = luna.blocks(luna.norm(net.inputs([image])))[0]
    slopes = (luna.head.weight[1] - luna.head.weight[0]).view_as(features)

    heat = heat_map(net, image)

    evidence = (slopes.mean((1, 2), keepdim=True) * features).sum(0).clamp_min(0)
    above = evidence - evidence.min()
    whole = nn.functional.interpolate(above[None, None], (64, 64), mode="bilinear")[0, 0]
    np.testing.assert_allclose(heat, (whole / whole.max()).numpy(), atol=1e-4)


def test_a_net_is_left_as_it_was_and_may_be_asked_in_inference_mode() -> None:
    net, image = random_net("resnet18"), noise((64, 64))
    expected, before = heat_map(net, image), net.scores([image])

    with torch.inference_mode():
        found = heat_map(net, image)

    assert np.array_equal(found, expected)
    assert np.array_equal(net.scores([image]), before)
    assert not any(module._forward_hooks for module in net.net.modules())
    assert all(p.grad is None and not p.requires_grad for p in net.net.parameters())


class DarkestCell(nn.Module):
    """Judges by the darkest of 4 x 4 px cells alone."""

    def __init__(self, sign: float = -1.0) -> None:
        super().__init__()
        self.blocks = nn.AvgPool2d(4)
        self.sign = nn.Parameter(torch.tensor(sign))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        cells: torch.Tensor = self.blocks(self.sign * images[:, :1]).amax((1, 2, 3))
        return torch.stack([-cells, cells], 1)


@pytest.mark.parametrize("place", [(0, 0), (12, 40), (60, 60), (28, 4)])
def test_a_map_marks_the_place_that_decides(place: tuple[int, int]) -> None:
    image = np.full((64, 64), 128, np.uint8)
    cell = slice(place[0], place[0] + 4), slice(place[1], place[1] + 4)
    image[cell] = 20

    heat = heat_map(loaded("luna", DarkestCell(), 64), image)

    assert heat[cell].max() == 1
    heat[cell] = 0
    assert heat.max() < 1


def test_a_map_is_zero_where_nothing_speaks_for_a_defect() -> None:
    bright = np.full((64, 64), 200, np.uint8)

    heat = heat_map(loaded("luna", DarkestCell(), 64), bright)

    assert heat.max() == 0


def test_an_answer_that_is_no_number_is_refused() -> None:
    net = loaded("luna", DarkestCell(float("nan")), 64)

    with pytest.raises(PackageError, match="heat map of luna holds nan"):
        heat_map(net, noise((64, 64)))


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), np.zeros((0, 8), np.uint8)]
)
def test_what_is_no_grey_image_is_refused(image: Grey) -> None:
    with pytest.raises(DataError, match=r"must be uint8 \[H, W\]"):
        heat_map(loaded("luna", DarkestCell(), 64), image)


def planted(rng: np.random.Generator, *, defect: bool) -> tuple[Grey, np.ndarray]:
    """Return noise of 64 px, with a dark spot of 7 px and its mask where `defect`."""
    image = np.clip(rng.normal(150, 25, (64, 64)), 0, 255).astype(np.uint8)
    mask = np.zeros((64, 64), bool)
    if defect:
        row, column = rng.integers(4, 53, 2)
        mask[row : row + 7, column : column + 7] = True
        image[mask] = 40
    return image, mask


@pytest.fixture(scope="module")
def trained() -> Iterator[LoadedNet]:
    """LUNA of recipe modern after a few steps on noise with and without a dark spot."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net = zoo.build("luna", 96, recipe="modern")
    fitted = loaded("luna", net, 96, "modern")
    net.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3)
    targets = torch.arange(16) % 2
    for _ in range(50):
        images = [planted(rng, defect=bool(target))[0] for target in targets]
        loss = nn.functional.cross_entropy(net(fitted.inputs(images)), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.requires_grad_(False).eval()
    yield fitted


def test_a_trained_luna_points_at_defects_that_it_never_saw_and_chance_does_not(
    trained: LoadedNet,
) -> None:
    rng = np.random.default_rng(1)
    hits = {"luna": 0, "random": 0}
    for _ in range(20):
        image, mask = planted(rng, defect=True)
        hits["luna"] += points_at(heat_map(trained, image), mask, 0.15, rng)
        hits["random"] += points_at(random_map(image.shape, rng), mask, 0.15, rng)

    assert hits["luna"] >= 16
    assert hits["random"] <= 8


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("side", [64, 90])
def test_the_map_of_a_turned_image_is_the_turned_map(
    trained: LoadedNet, turns: int, side: int
) -> None:
    image = np.kron(planted(np.random.default_rng(2), defect=True)[0], np.ones((2, 2), np.uint8))
    image = np.ascontiguousarray(image[:side, :side])

    heat = heat_map(trained, np.ascontiguousarray(np.rot90(image, turns)))

    np.testing.assert_allclose(heat, np.rot90(heat_map(trained, image), turns), atol=1e-3)
