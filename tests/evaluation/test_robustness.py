"""Perturbations of images, and what they do to a net's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from zdm_ml.data.manifest import CLASSES, Row
from zdm_ml.evaluation.robustness import (
    blurred,
    brightened,
    contrasted,
    equalised,
    perturbations,
    perturbed,
    recompressed,
    robustness,
    turned,
)
from zdm_ml.models.net import LoadedNet, NetSpec

NAMES = sorted(perturbations(128.0))
LIMITS: dict[str, Any] = {"seed": 5, "batch_size": 4, "max_pixels": 10_000}


def picture(seed: int = 0, height: int = 60, width: int = 80) -> np.ndarray:
    """Return a smooth grey image with neither black nor white in it."""
    noise = np.random.default_rng(seed).uniform(0, 1, (6, 8)).astype(np.float32)
    smooth = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    return (90 + 70 * smooth).astype(np.uint8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(60, 80), (1, 1), (301, 300)])
def test_every_perturbation_keeps_size_and_type(name: str, shape: tuple[int, int]) -> None:
    image = picture(height=shape[0], width=shape[1])
    kept = image.copy()

    shown = perturbed(image, name, perturbations(128.0)[name], "a.png", 0)

    assert (shown.shape, shown.dtype) == (shape, np.uint8)
    assert (image == kept).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_perturbation_changes_the_image_alike_each_time(name: str) -> None:
    image, perturbation = picture(height=300, width=320), perturbations(100.0)[name]

    first, again = (perturbed(image, name, perturbation, "a.png", 3) for _ in range(2))

    assert (first == again).all()
    assert (first != image).any()


def test_rotation_depends_on_seed_and_path_alone() -> None:
    image, rotation = picture(), perturbations(128.0)["rotation"]

    shown = [
        perturbed(image, "rotation", rotation, path, seed)
        for path, seed in (("a.png", 0), ("b.png", 0), ("a.png", 1))
    ]

    assert (shown[0] != shown[1]).any() and (shown[0] != shown[2]).any()


@pytest.mark.parametrize("levels", [20, -20])
def test_brightness_moves_every_pixel_and_clips(levels: int) -> None:
    assert (brightened(picture(), levels).astype(int) - picture() == levels).all()
    assert brightened(np.array([[250, 5]], np.uint8), 20).tolist() == [[255, 25]]


@given(st.integers(0, 50), st.integers(-80, 80), st.floats(20, 230))
def test_equalising_brings_every_image_to_the_same_mean(
    seed: int, offset: int, level: float
) -> None:
    image = brightened(picture(seed), offset)

    assert equalised(image, level).mean() == pytest.approx(level, abs=0.51)


def test_contrast_keeps_the_mean_and_scales_the_differences() -> None:
    image = picture()

    flat = contrasted(image, 0.75)

    assert flat.mean() == pytest.approx(image.mean(), abs=0.5)
    assert flat.std() == pytest.approx(0.75 * image.std(), rel=0.02)


def test_blur_is_as_wide_at_any_resolution() -> None:
    small = picture(height=150, width=150)
    small[:, 75:] = 250
    large = cv2.resize(small, (600, 600), interpolation=cv2.INTER_NEAREST)

    shrunk = cv2.resize(blurred(large, 1.5), (150, 150), interpolation=cv2.INTER_AREA)

    assert np.abs(shrunk.astype(int) - blurred(small, 1.5)).mean() < 2


def test_jpeg_loses_little_and_something() -> None:
    difference = np.abs(recompressed(picture(), 50).astype(int) - picture())

    assert 0 < difference.mean() < 4


def test_a_quarter_turn_is_exact_and_repeats_the_border() -> None:
    square = picture(height=61, width=61)

    assert np.abs(turned(square, 90, 1.0).astype(int) - np.rot90(square)).max() <= 1
    assert turned(np.full((40, 90), 200, np.uint8), 30, 1.0).min() == 200


class Brightness(nn.Module):
    """Judges dark images defects: the score is 1 below mean grey 128, 0 above."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = images.mean(dim=(1, 2, 3))
        return torch.stack([level * 1e3, -level * 1e3], dim=1)


@pytest.fixture
def loaded() -> LoadedNet:
    spec = NetSpec("luna", CLASSES, 32, 128 / 255, 0.2, "scratch", None, "full", "smoke")
    return LoadedNet(spec, Brightness().eval(), torch.device("cpu"))


def castings(folder: Path, dark: int, bright: int, each: int = 6) -> list[Row]:
    made = []
    for label, level in (("defect", dark), ("ok", bright)):
        for at in range(each):
            name = f"{label}-{at}.png"
            pixels = np.full((32, 40), level, np.uint8)
            pixels[8:16, 8:16] += 20
            Image.fromarray(pixels).save(folder / name)
            mean = float(pixels.mean())
            made.append(
                Row(name, "", label, f"{label}-{at // 2}", "", "test", -1, 40, 32, mean, "", "")
            )
    return made


def test_a_net_that_looks_at_brightness_alone_is_found_out(
    tmp_path: Path, loaded: LoadedNet
) -> None:
    rows = castings(tmp_path, dark=100, bright=160)

    found = robustness(loaded, rows, tmp_path, 0.5, **LIMITS)

    table = found["perturbations"]
    assert table["none"]["balanced_accuracy"] == table["brightness_plus_20"]["accuracy"] == 1.0
    assert table["brightness_equalised"]["balanced_accuracy"] == 0.5
    assert found["worst"]["name"] == "brightness_equalised"
    assert found["worst"]["balanced_accuracy"] == 0.5
    assert (found["images"], found["castings"]) == (12, 6)


def test_the_worst_has_the_lowest_balanced_accuracy(tmp_path: Path, loaded: LoadedNet) -> None:
    rows = castings(tmp_path, dark=118, bright=200)

    found = robustness(loaded, rows, tmp_path, 0.5, **LIMITS)

    table, worst = found["perturbations"], dict(found["worst"])
    name = worst.pop("name")
    assert worst == {key: table[name][key] for key in worst}
    assert worst["balanced_accuracy"] == min(row["balanced_accuracy"] for row in table.values())
    assert table["brightness_plus_20"]["escapes"] == 6


def test_figures_do_not_depend_on_the_batch(tmp_path: Path, loaded: LoadedNet) -> None:
    rows = castings(tmp_path, dark=118, bright=138)

    whole = robustness(loaded, rows, tmp_path, 0.5, **LIMITS)
    one_by_one = robustness(loaded, rows, tmp_path, 0.5, **{**LIMITS, "batch_size": 1})

    assert whole == one_by_one


def test_progress_counts_every_scored_image(tmp_path: Path, loaded: LoadedNet) -> None:
    steps: list[tuple[int, int]] = []
    rows = castings(tmp_path, dark=100, bright=160)

    robustness(loaded, rows, tmp_path, 0.5, **LIMITS, on_step=lambda *step: steps.append(step))

    total = 12 * (len(NAMES) + 1)
    assert steps[0] == (4, total) and steps[-1] == (total, total)
