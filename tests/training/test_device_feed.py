"""What is shown from a device is what the CPU shows; tolerances are in grey levels of 256."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from recipes import MILD, STILL, STRONG

from zdm_ml.data.augment import Augmenter
from zdm_ml.data.pasting import Patch, draw_patches
from zdm_ml.recipes import AugmentParams, Sampling
from zdm_ml.training.batches import Feed
from zdm_ml.training.device_feed import DeviceAugmenter, DeviceFeed
from zdm_ml.training.device_images import DeviceImages
from zdm_ml.training.sides import Images, Side

SIZE, IMAGES, SEED, EPOCH = 48, 24, 5, 2
CPU = torch.device("cpu")
DEVICES = [CPU] + [torch.device("cuda")] * torch.cuda.is_available()

SAME: dict[str, dict[str, Any]] = {
    "nothing": {},
    "flips": {"horizontal_flip": 0.5, "vertical_flip": 0.5},
    "brightness and contrast": {"jitter": 0.25},
    "gamma": {"gamma": 0.25},
}
ROUNDED: dict[str, dict[str, Any]] = {
    "light": {"lighting": 0.15},
    "paste": {"paste": 0.5},
    "mix": {"mix": 0.5},
}
# Before version 5, OpenCV moves what it interpolates by up to 1/64 of a pixel.
MOVED: dict[str, dict[str, Any]] = {
    "rotation": {"degrees": 180.0},
    "shift": {"translate": 0.1},
    "scale": {"scale": [0.8, 1.2]},
    "stretch": {"stretch": 0.1},
}


def pictures(count: int = IMAGES, size: int = SIZE) -> Images:
    """Return smooth noise over all grey levels: on raw noise a thousandth of a pixel shows."""
    noise = np.random.default_rng(0).integers(0, 256, (count, size, size), np.uint8)
    blurred = [cv2.GaussianBlur(image, (0, 0), 1.5) for image in noise]
    return np.stack([cv2.normalize(b, None, 0, 255, cv2.NORM_MINMAX) for b in blurred])


def make_side(images: Images) -> Side:
    """Return a side whose images are some of the array's, in another order."""
    places = np.random.default_rng(1).permutation(len(images))[: len(images) - 3]
    return Side(images, places, places % 2, places // 3)


def patches() -> tuple[Patch, ...]:
    return draw_patches(SIZE, 16)


def feeds(
    side: Side, params: AugmentParams, sampling: Sampling = "images", **settings: Any
) -> Iterator[Feed | DeviceFeed]:
    """Return the CPU's feed and the device's."""
    epochs = (side, sampling, 30, 8, SEED)
    with Augmenter(params, SEED, patches(), mean=0.5, std=0.25) as augmenter:
        yield Feed(*epochs, augmenter, **settings)
    images = DeviceImages(side.images, CPU)
    device = DeviceAugmenter(params, SEED, images, patches(), mean=0.5, std=0.25)
    yield DeviceFeed(*epochs, device, **settings)


def shown(
    params: AugmentParams, device: torch.device, size: int = SIZE
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return what both make of the same good castings, in grey levels."""
    images, rows, targets = pictures(size=size), np.arange(IMAGES), np.zeros(IMAGES, np.int64)
    drawn = draw_patches(size, 16)
    with Augmenter(params, SEED, drawn) as augmenter:
        expected, truth = augmenter.batch(images, targets, EPOCH, rows, images[::-1])
    augmenter_there = DeviceAugmenter(params, SEED, DeviceImages(images, device), drawn)

    result, found = augmenter_there.batch(rows, targets, EPOCH, rows, rows[::-1].copy())

    assert (result.dtype, found.dtype) == (torch.float32, torch.int64)
    assert result.device.type == found.device.type == device.type
    assert (found.cpu().numpy() == truth).all()
    return result.cpu().numpy() * 255, expected * 255


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("change", SAME)
def test_flips_and_tables_of_grey_levels_agree_exactly(change: str, device: torch.device) -> None:
    result, expected = shown(replace(STILL, **SAME[change]), device)

    assert (np.abs(result - expected) < 0.5).all()


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("change", ROUNDED)
def test_light_mixed_castings_and_pasted_defects_agree_but_for_rounding(
    change: str, device: torch.device
) -> None:
    result, expected = shown(replace(STILL, **ROUNDED[change]), device)

    difference = np.abs(result - expected)
    assert (difference < 0.5).mean() > 0.999
    assert difference.max() < 1.5


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("change", MOVED)
def test_moved_castings_agree_but_for_rounding(change: str, device: torch.device) -> None:
    result, expected = shown(replace(STILL, **MOVED[change]), device)

    difference = np.abs(result - expected)
    assert np.abs(expected - pictures()).mean() > 1
    assert difference.mean() < 0.3
    assert (difference < 1.5).mean() > 0.999


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("size", [37, SIZE, 96])
@pytest.mark.parametrize("params", [STRONG, MILD], ids=["modern", "reference"])
def test_all_changes_together_agree_but_for_rounding(
    params: AugmentParams, size: int, device: torch.device
) -> None:
    result, expected = shown(params, device, size)

    difference = np.abs(result - expected)
    assert difference.mean() < 0.3
    # Contrast and gamma spread one level of difference to a few.
    assert (difference < 2.5).mean() > 0.995


def test_the_same_defects_are_pasted_on_the_same_images() -> None:
    result, expected = shown(replace(STILL, paste=0.5), CPU)

    pasted = expected.round() != pictures()

    assert 0 < pasted.any((1, 2)).sum() < IMAGES
    assert ((result.round() != pictures()).any((1, 2)) == pasted.any((1, 2))).all()
    # Levels are cut, not rounded, after pasting: rounding would change every other pixel.
    assert np.abs(result - expected)[pasted].mean() < 0.2


def test_defective_castings_get_nothing_pasted() -> None:
    images, rows = pictures(), np.arange(IMAGES)
    device = DeviceAugmenter(replace(STILL, paste=0.5), SEED, DeviceImages(images, CPU), patches())

    result, targets = device.batch(rows, np.ones(IMAGES, np.int64), EPOCH, rows)

    assert (result * 255).round().numpy() == pytest.approx(images)
    assert (targets == 1).all()


@pytest.mark.parametrize("sampling", ["images", "castings"])
@pytest.mark.parametrize("share", [(0, 1), (1, 2)])
def test_an_epoch_shows_the_same_in_the_same_order(
    sampling: Sampling, share: tuple[int, int]
) -> None:
    both = feeds(make_side(pictures()), STRONG, sampling, good=0.6, share=share)

    on_cpu, there = [(feed.count, list(feed.batches(EPOCH))) for feed in both]

    assert on_cpu[0] == there[0]
    for (expected, truth), (result, targets) in zip(on_cpu[1], there[1], strict=True):
        assert (truth == targets.numpy()).all()
        assert np.abs(expected - result.numpy()).mean() * 0.25 * 255 < 0.3


def test_an_epoch_is_the_same_each_time_and_unlike_the_next() -> None:
    *_, feed = feeds(make_side(pictures()), STRONG)

    first, again, other = [
        torch.cat([inputs for inputs, _ in feed.batches(epoch)]) for epoch in (1, 1, 2)
    ]

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_that_stay_on_the_host_are_shown_alike() -> None:
    images, rows, targets = pictures(), np.array([3, 0, 7]), np.array([0, 1, 0])
    images.setflags(write=False)  # as mapped from a file

    first, second = [
        DeviceAugmenter(
            STRONG, SEED, DeviceImages(images, CPU, resident=resident), patches()
        ).batch(rows, targets, EPOCH, rows)[0]
        for resident in (True, False)
    ]

    assert torch.equal(first, second)


@pytest.mark.parametrize("resident", [True, False])
def test_pictures_come_unchanged(resident: bool) -> None:
    images, rows = pictures(), np.array([3, 0, 3])

    found = DeviceImages(images, CPU, resident=resident).pictures(rows)

    assert (found.numpy() == images[rows]).all()


def test_images_larger_than_half_of_the_free_memory_stay_on_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = pictures()
    free = 2 * images.nbytes - 2
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 100 * free))

    assert not DeviceImages(images, torch.device("cuda")).resident
    assert DeviceImages(images, CPU).resident


@pytest.mark.parametrize("resident", [True, False])
def test_making_a_batch_reads_nothing_back_from_the_device(resident: bool) -> None:
    """Tensors on `meta` have no values: whatever asks for one fails."""
    images = DeviceImages(pictures(), torch.device("meta"), resident=resident)
    rows = np.arange(IMAGES)

    result, targets = DeviceAugmenter(STRONG, SEED, images, patches()).batch(
        rows, rows % 2, EPOCH, rows
    )

    assert result.shape == (IMAGES, SIZE, SIZE)
    assert targets.shape == (IMAGES,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("resident", [True, False])
def test_a_gpu_never_waits_for_the_cpu(resident: bool) -> None:
    images = DeviceImages(pictures(), torch.device("cuda"), resident=resident)
    augmenter = DeviceAugmenter(STRONG, SEED, images, patches())
    rows = np.arange(IMAGES)
    augmenter.batch(rows, rows % 2, EPOCH, rows)

    torch.cuda.set_sync_debug_mode("error")
    try:
        augmenter.batch(rows, rows % 2, EPOCH, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_pass_that_is_given_up_ends() -> None:
    *_, feed = feeds(make_side(pictures()), STRONG)

    batches = feed.batches(EPOCH)
    next(batches)
    batches.close()

    with pytest.raises(StopIteration):
        next(batches)
