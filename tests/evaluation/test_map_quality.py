"""Measures of heat maps: what knows the defect passes, what knows nothing does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from zdm_ml.data.rendering import Photograph
from zdm_ml.data.synthetic import known_defects
from zdm_ml.evaluation.map_quality import (
    MODEL,
    compare,
    disc_map,
    faithfulness,
    localisation,
    mappers,
    overlap,
    points_at,
    random_map,
)
from zdm_ml.evaluation.saliency import Grey, Heat
from zdm_ml.models.net import LoadedNet, NetSpec
from zdm_ml.params import SaliencyParams, load_params

pytestmark = pytest.mark.usefixtures("one_thread")

Rng = np.random.Generator
SHAPE = (40, 50)


@pytest.fixture(scope="module")
def wanted(project: Path) -> SaliencyParams:
    return load_params(project / "params.yaml").saliency


@pytest.fixture(scope="module")
def photographs() -> list[Photograph]:
    return known_defects(40, seed=3)


@pytest.fixture
def rng() -> Rng:
    return np.random.default_rng(0)


def square(row: int, column: int, side: int = 4) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[row : row + side, column : column + side] = True
    return mask


def peak(row: int, column: int) -> Heat:
    heat = np.full(SHAPE, 0.25, np.float32)
    heat[row, column] = 1
    return heat


def test_a_map_points_at_a_defect_or_a_stated_bit_beside_it(rng: Rng) -> None:
    mask = square(10, 10)

    assert points_at(peak(12, 12), mask, 0.0, rng)
    assert not points_at(peak(9, 12), mask, 0.0, rng)
    # Four pixels beside it: a tenth of the shorter side.
    assert points_at(peak(6, 12), mask, 0.1, rng)
    assert not points_at(peak(5, 12), mask, 0.1, rng)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_an_even_map_points_nowhere(rng: Rng, level: float) -> None:
    heat = np.full(SHAPE, level, np.float32)

    assert not points_at(heat, np.ones(SHAPE, bool), 0.5, rng)


def test_a_map_of_many_equal_peaks_hits_as_often_as_chance_says(rng: Rng) -> None:
    heat = square(0, 0, side=20).astype(np.float32)
    mask = square(0, 0, side=10)

    hits = sum(points_at(heat, mask, 0.0, rng) for _ in range(400))

    assert 60 <= hits <= 140


def test_overlap_is_that_of_areas() -> None:
    mask, heat = square(0, 0, side=4), square(0, 2, side=4).astype(np.float32)

    iou, iop = overlap(heat, mask, 0.5)

    assert (iou, iop) == (8 / 24, 0.5)


@given(
    heat=st.lists(st.floats(0, 1), min_size=12, max_size=12),
    mask=st.lists(st.booleans(), min_size=12, max_size=12),
    threshold=st.floats(0.01, 1),
)
@settings(deadline=None)
def test_no_map_overlaps_more_than_wholly_and_iou_is_never_above_iop(
    heat: list[float], mask: list[bool], threshold: float
) -> None:
    iou, iop = overlap(np.array(heat, np.float32), np.array(mask), threshold)

    assert 0 <= iou <= iop <= 1


def test_what_knows_the_defect_passes_every_measure(
    wanted: SaliencyParams, photographs: list[Photograph]
) -> None:
    known = {photo.image.tobytes(): photo.mask for photo in photographs}

    found = localisation(
        lambda image, _: (known[image.tobytes()] / 255).astype(np.float32),
        photographs,
        wanted,
        0.95,
        seed=0,
    )

    assert found["hits"] == len(photographs)
    assert (found["pointing"], found["pointing_high"]) == (1, 1)
    assert found["pointing_low"] == pytest.approx(0.025 ** (1 / 40), abs=1e-6)
    assert (found["iou"], found["iop"]) == (1, 1)


@pytest.mark.parametrize("name", ["random", "disc"])
def test_what_knows_nothing_fails_the_projects_floor(
    wanted: SaliencyParams, photographs: list[Photograph], name: str
) -> None:
    found = localisation(mappers(darkness())[name], photographs, wanted, 0.95, seed=0)

    assert found["pointing_high"] < wanted.floor
    assert found["iou"] < 0.1


def test_blind_maps_have_the_form_of_heat_maps(rng: Rng) -> None:
    for heat in (random_map(SHAPE, rng), disc_map(SHAPE)):
        assert (heat.shape, heat.dtype) == (SHAPE, np.float32)
        assert (heat.min() >= 0, heat.max()) == (True, 1)


class Darkness(nn.Module):
    """Judges by the darkest of 4 x 4 px cells alone."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.AvgPool2d(4)
        self.sign = nn.Parameter(torch.tensor(-1.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        cells: torch.Tensor = self.blocks(self.sign * images[:, :1]).amax((1, 2, 3)) - 1
        return torch.stack([-cells, cells], 1)


def darkness() -> LoadedNet:
    spec = NetSpec("luna", ("ok", "defect"), 48, 0.5, 0.25, "scratch", None, "full", "smoke")
    return LoadedNet(spec, Darkness().eval(), torch.device("cpu"))


def spotted(count: int = 4) -> list[Grey]:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        image = rng.integers(120, 180, (48, 48), dtype=np.uint8)
        row, column = rng.integers(2, 38, 2)
        image[row : row + 8, column : column + 8] = 10
        images.append(image)
    return images


def test_a_score_hangs_on_what_the_nets_own_map_marks() -> None:
    net = darkness()

    figures = {
        name: faithfulness(mapper, net, spotted(), steps=10, seed=0)
        for name, mapper in mappers(net).items()
    }

    own = figures.pop(MODEL)
    for blind in figures.values():
        assert own["deletion"] < blind["deletion"]
        assert own["insertion"] > blind["insertion"]


def test_without_real_defects_nothing_hangs_on_anything() -> None:
    net = darkness()

    found = faithfulness(mappers(net)[MODEL], net, [], steps=10, seed=0)

    assert found == {"deletion": None, "insertion": None}


def test_all_maps_run_through_all_measures_and_are_counted(
    wanted: SaliencyParams, photographs: list[Photograph]
) -> None:
    net, counted = darkness(), []
    few = replace(wanted, steps=2)

    def run() -> dict[str, dict[str, float]]:
        return compare(
            net,
            photographs[:2],
            spotted(1),
            few,
            confidence=0.95,
            seed=0,
            progress=lambda done, total: counted.append((done, total)),
        )

    figures = run()

    assert list(figures) == [MODEL, "random", "disc"]
    assert counted == [(done, 9) for done in range(1, 10)]
    assert run() == figures
