"""What a heat map is worth: does it point at the defect, and does the score hang on what it marks?

Two maps that know nothing of the image run through the same measures, so that a figure can be told
from chance and from the habit of castings to lie in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.rendering import Photograph
from zdm_ml.evaluation.bounds import exact_interval
from zdm_ml.evaluation.saliency import Grey, Heat, heat_map
from zdm_ml.models.net import LoadedNet
from zdm_ml.params import SaliencyParams

Rng = np.random.Generator
Mapper = Callable[[Grey, Rng], Heat]
Mask = npt.NDArray[np.bool_]
Step = Callable[[], None]

MODEL = "model"
RANDOM_CELLS = 10
"""Of the random map, along a side: as coarse as the last planes of a CNN."""
DISC_RADIUS = 0.39
"""Of the centred disc as a share of the image's side: that of a casting in the public images."""
BLUR = 0.05
"""Deviation of the blur that stands for "removed", as a share of the image's side."""


def compare(
    loaded: LoadedNet,
    photographs: Sequence[Photograph],
    images: Sequence[Grey],
    params: SaliencyParams,
    *,
    confidence: float,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, Any]]:
    """Return the figures of the net's maps (`model`) and of those that know nothing, by name.

    `photographs` have masks of their defects, one at least; `images` are real, grey uint8 [H, W],
    and may be none. `progress(done, total)` counts maps.
    """
    compared = mappers(loaded)
    done, total = count(1), len(compared) * (len(photographs) + len(images))

    def step() -> None:
        progress(next(done), total)

    return {
        name: {
            **localisation(mapper, photographs, params, confidence, seed, step),
            **faithfulness(mapper, loaded, images, params.steps, seed, step),
        }
        for name, mapper in compared.items()
    }


def mappers(loaded: LoadedNet) -> dict[str, Mapper]:
    """Return the maps to compare, by name: the model's, and those that know nothing."""
    return {
        MODEL: lambda image, _: heat_map(loaded, image),
        "random": lambda image, rng: random_map(image.shape, rng),
        "disc": lambda image, _: disc_map(image.shape),
    }


def random_map(shape: tuple[int, ...], rng: Rng) -> Heat:
    """Return smooth noise, float32 [H, W] in [0, 1]."""
    coarse = rng.random((RANDOM_CELLS, RANDOM_CELLS), dtype=np.float32)
    noise = cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(noise / noise.max(), dtype=np.float32)


def disc_map(shape: tuple[int, ...]) -> Heat:
    """Return 1 on a disc in the middle that covers a casting, 0 around it, float32 [H, W]."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    apart = np.hypot(rows - (shape[0] - 1) / 2, columns - (shape[1] - 1) / 2)
    return (apart <= DISC_RADIUS * min(shape)).astype(np.float32)


def localisation(
    mapper: Mapper,
    photographs: Sequence[Photograph],
    params: SaliencyParams,
    confidence: float,
    seed: int,
    step: Step = lambda: None,
) -> dict[str, Any]:
    """Return how maps of castings with known defects lie on them: pointing score, IoU, IoP.

    `pointing` comes with its exact interval: each photograph shows a casting of its own.
    """
    hits, overlaps = 0, []
    for number, photo in enumerate(photographs):
        rng = np.random.default_rng([seed, number])
        heat, mask = mapper(photo.image, rng), photo.mask > 0
        hits += points_at(heat, mask, params.tolerance, rng)
        overlaps.append(overlap(heat, mask, params.threshold))
        step()
    low, high = exact_interval(hits, len(photographs), confidence) or (None, None)
    iou, iop = np.mean(overlaps, axis=0)
    pointing = hits / len(photographs)
    bounds = {"pointing_low": low, "pointing_high": high}
    return {"hits": hits, **_rounded({"pointing": pointing, **bounds, "iou": iou, "iop": iop})}


def points_at(heat: Heat, mask: Mask, tolerance: float, rng: Rng) -> bool:
    """Tell whether the largest value of a map lies on the mask or at most `tolerance` beside it.

    `tolerance` is a share of the shorter side. Of several largest values one is drawn; a map that
    is even points nowhere. The pointing game of Zhang et al., "Top-down Neural Attention by
    Excitation Backprop", ECCV 2016, where the tolerance is 15 pixels.
    """
    if heat.min() == heat.max():
        return False
    row, column = rng.choice(np.argwhere(heat == heat.max()))
    beside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return bool(beside[row, column] <= tolerance * min(mask.shape))


def overlap(heat: Heat, mask: Mask, threshold: float) -> tuple[float, float]:
    """Return IoU and IoP of mask and map, which marks what is at or above `threshold`.

    IoP is the intersection over the predicted area: the share of what is marked that is defect.
    """
    marked = heat >= threshold
    both, either = np.count_nonzero(marked & mask), np.count_nonzero(marked | mask)
    area = np.count_nonzero(marked)
    return both / either if either else 0.0, both / area if area else 0.0


def faithfulness(
    mapper: Mapper,
    loaded: LoadedNet,
    images: Sequence[Grey],
    steps: int,
    seed: int,
    step: Step = lambda: None,
) -> dict[str, float | None]:
    """Return how P(defect) hangs on what the map marks: `deletion` (low is good), `insertion`.

    Areas under the curve of the score while the image's pixels, those marked most first, are
    blurred, or while they come back to a blurred image, in `steps` equal parts; means over
    `images`, None without any. Petsiuk et al., "RISE: Randomized Input Sampling for Explanation of
    Black-box Models", BMVC 2018; here blur stands for "removed" in both directions.
    """
    areas = []
    for number, image in enumerate(images):
        rng = np.random.default_rng([seed, number])
        areas.append(_areas(loaded, image, _shares_before(mapper(image, rng), rng), steps))
        step()
    deletion, insertion = np.mean(areas, axis=0) if areas else (None, None)
    return _rounded({"deletion": deletion, "insertion": insertion})


def _shares_before(heat: Heat, rng: Rng) -> npt.NDArray[np.float64]:
    """Return for each pixel the share of pixels that come before it; ties in random order."""
    order = np.lexsort((rng.random(heat.size), -heat.ravel()))
    shares = np.empty(heat.size)
    shares[order] = np.arange(heat.size) / heat.size
    return shares.reshape(heat.shape)


def _areas(
    loaded: LoadedNet, image: Grey, shares: npt.NDArray[np.float64], steps: int
) -> tuple[float, float]:
    blurry = cv2.GaussianBlur(image, (0, 0), BLUR * min(image.shape))
    taken = [shares < step / steps for step in range(steps + 1)]
    deleted = [np.where(gone, blurry, image) for gone in taken]
    inserted = [np.where(back, image, blurry) for back in taken]
    # The same two images stand at both ends of both curves.
    scores = loaded.scores([*deleted, *inserted[1:-1]])
    down = scores[: steps + 1]
    up = np.concatenate([down[-1:], scores[steps + 1 :], down[:1]])
    return float(np.trapezoid(down) / steps), float(np.trapezoid(up) / steps)


def _rounded(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    # Last digits vary from machine to machine.
    return {
        name: None if value is None else round(float(value), 6) for name, value in figures.items()
    }
