"""What a model's verdicts are worth when light, camera or pose change a little."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.manifest import Row
from zdm_ml.evaluation.metrics import Scores, metrics
from zdm_ml.evaluation.scoring import decode_row
from zdm_ml.models.net import LoadedNet

Grey = npt.NDArray[np.uint8]
Perturbation = Callable[[Grey, np.random.Generator], Grey]

UNPERTURBED = "none"
REFERENCE_SIDE = 300
"""Pixels along the shorter side at which a blur's sigma is stated."""

_LEVELS = np.arange(256)
_THREADS = 4
_FIGURES = ("accuracy", "balanced_accuracy", "escapes", "overkills", "images")


def perturbations(mean_grey: float) -> dict[str, Perturbation]:
    """Return every perturbation by name; `mean_grey` is the level that equalising brings to.

    Each takes a grey image, uint8 [H, W] of any size, and returns another of the same size.
    """
    return {
        "brightness_plus_20": lambda image, _: brightened(image, 20),
        "brightness_minus_20": lambda image, _: brightened(image, -20),
        "brightness_equalised": lambda image, _: equalised(image, mean_grey),
        "contrast_75": lambda image, _: contrasted(image, 0.75),
        "contrast_125": lambda image, _: contrasted(image, 1.25),
        "blur": lambda image, _: blurred(image, 1.5),
        "jpeg_50": lambda image, _: recompressed(image, 50),
        "rotation": lambda image, rng: turned(image, float(rng.uniform(0, 360)), 1.0),
        "mirror": lambda image, _: np.ascontiguousarray(image[:, ::-1]),
        "zoom_5": lambda image, _: turned(image, 0.0, 1.05),
    }


def brightened(image: Grey, levels: float) -> Grey:
    """Return the image lighter by `levels` grey levels, clipped at black and white."""
    return _looked_up(image, _LEVELS + levels)


def equalised(image: Grey, mean_grey: float) -> Grey:
    """Return the image shifted in brightness until its mean, clipping included, is `mean_grey`.

    What a net can no longer use then is the shortcut that one class is brighter than the other.
    The shift is in whole grey levels: the mean is met to half a level.
    """
    shifts = np.arange(-255, 256)
    counts = np.bincount(image.ravel(), minlength=256)
    means = np.clip(_LEVELS + shifts[:, None], 0, 255) @ counts / image.size
    return brightened(image, int(shifts[np.abs(means - mean_grey).argmin()]))


def contrasted(image: Grey, factor: float) -> Grey:
    """Return the image with its differences from the mean grey level multiplied by `factor`."""
    mean = float(image.mean())
    return _looked_up(image, mean + factor * (_LEVELS - mean))


def blurred(image: Grey, sigma: float) -> Grey:
    """Return the image under a Gaussian blur of `sigma` pixels at 300 px, scaled to its size."""
    scaled = sigma * min(image.shape) / REFERENCE_SIDE
    blurry = cv2.GaussianBlur(image, (0, 0), scaled, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurry, dtype=np.uint8)


def recompressed(image: Grey, quality: int) -> Grey:
    """Return the image as a JPEG of `quality` gives it back."""
    _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(content, cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def turned(image: Grey, degrees: float, scale: float) -> Grey:
    """Return the image rotated and scaled about its centre; beyond the border it is repeated."""
    height, width = image.shape
    centre = ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, degrees, scale)
    warped = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, dtype=np.uint8)


def perturbed(image: Grey, name: str, perturbation: Perturbation, path: str, seed: int) -> Grey:
    """Return the image perturbed; what chance decides follows from seed, `path` and name alone."""
    key = [seed, zlib.crc32(path.encode()), zlib.crc32(name.encode())]
    return perturbation(image, np.random.default_rng(key))


def robustness(
    loaded: LoadedNet,
    rows: Sequence[Row],
    folder: Path,
    threshold: float,
    *,
    seed: int,
    batch_size: int,
    max_pixels: int,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Return the figures of the rows' images under each perturbation, and the worst of them.

    `none` is the same images unperturbed. The worst is the perturbation with the lowest balanced
    accuracy, then the most escapes. Images are decoded once, a batch at a time; `on_step(done,
    total)` counts scored images.
    """
    chosen = perturbations(float(np.mean([row.mean_grey for row in rows])))
    scores = _scores(loaded, rows, folder, chosen, seed, batch_size, max_pixels, on_step)
    targets = np.array([row.target for row in rows], dtype=np.int64)
    table = {}
    for name, found in scores.items():
        figures = metrics(found, targets, threshold)
        table[name] = {key: figures[key] for key in _FIGURES}
    worst = min(chosen, key=lambda name: _badness(table[name], name))
    shown = ("balanced_accuracy", "accuracy", "escapes", "overkills")
    return {
        "perturbations": table,
        "worst": {"name": worst, **{key: table[worst][key] for key in shown}},
        "images": len(rows),
        "castings": len({row.part for row in rows}),
    }


def _scores(
    loaded: LoadedNet,
    rows: Sequence[Row],
    folder: Path,
    chosen: Mapping[str, Perturbation],
    seed: int,
    batch_size: int,
    max_pixels: int,
    on_step: Callable[[int, int], None],
) -> dict[str, Scores]:
    scores: dict[str, Scores] = {name: np.empty(len(rows)) for name in (UNPERTURBED, *chosen)}
    done, total = 0, len(rows) * len(scores)
    # Images are the unit of parallel work; OpenCV's own threads would only compete.
    cv2.setNumThreads(1)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="perturb") as pool:
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            images = list(pool.map(partial(decode_row, folder, max_pixels=max_pixels), batch))
            for name, found in scores.items():
                shown = images
                if name != UNPERTURBED:
                    shown = list(_all_perturbed(pool, images, batch, name, chosen[name], seed))
                found[start : start + len(batch)] = loaded.scores(shown, batch_size)
                done += len(batch)
                on_step(done, total)
    return scores


def _all_perturbed(
    pool: ThreadPoolExecutor,
    images: Sequence[Grey],
    rows: Sequence[Row],
    name: str,
    perturbation: Perturbation,
    seed: int,
) -> Iterator[Grey]:
    return pool.map(
        lambda image, row: perturbed(image, name, perturbation, row.path, seed), images, rows
    )


def _badness(figures: Mapping[str, Any], name: str) -> tuple[float, int, str]:
    return figures["balanced_accuracy"], -figures["escapes"], name


def _looked_up(image: Grey, levels: npt.NDArray[Any]) -> Grey:
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table), dtype=np.uint8)
