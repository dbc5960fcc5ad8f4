"""Castings photographed and then distorted as much as identity must survive."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from zdm_ml.data.images import Grey
from zdm_ml.data.rendering import make_part, photograph

SIZE = 300
IN_VIEW = 4 / 3
"""Width of a distorted picture over that of its photograph.

The largest casting (1.12 x 1.1 from the photograph, 1.15 x 1.15 on top) still fits into it, as the
castings of the public set fit into their pictures.
"""

LIMIT = 0.15
"""Largest change of zoom and shear."""

LIGHT = 0.25
"""Largest change of brightness and contrast."""

PLAIN_QUALITY = 80


def render_castings(
    folder: Path, *, parts: int, views: int, seed: int, distorted: bool, width: float = IN_VIEW
) -> dict[str, int]:
    """Write `parts` x `views` JPEGs in Kaggle's layout and return path -> number of the part.

    File names are dealt at random: neither they nor their order tell anything about the parts.
    """
    for split in ("train", "test"):
        for name in ("ok_front", "def_front"):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng([seed, parts]).permutation(parts * views).reshape(parts, views)
    make = partial(_make, folder, seed, distorted, width)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        names = list(pool.map(make, range(parts), numbers.tolist()))
    return {path: index for index, paths in enumerate(names) for path in paths}


def distort(image: Grey, rng: np.random.Generator, *, width: float) -> Grey:
    """Return a picture turned, perhaps mirrored, zoomed, sheared, shifted and lit otherwise.

    The result is `width` times as wide; borders are replicated.
    """
    side = image.shape[0]
    wide = round(side * width)
    turn = rng.uniform(0, 2 * np.pi)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mirror = np.diag([float(rng.choice([-1, 1])), 1.0])
    across, down = rng.uniform(-LIMIT, LIMIT, 2)
    zoom = rng.uniform(1 - LIMIT, 1 + LIMIT)
    matrix = np.array([[1.0, across], [down, 1.0]]) @ turned @ mirror * zoom
    goal = (wide - 1) / 2 + rng.uniform(-0.03, 0.03, 2) * side
    pose = np.column_stack([matrix, goal - matrix @ np.full(2, (side - 1) / 2)])
    seen = cv2.warpAffine(
        image, pose, (wide, wide), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.float32)
    brightness, contrast = rng.uniform(1 - LIGHT, 1 + LIGHT, 2)
    mean = seen.mean()
    return np.clip((seen - mean) * contrast + mean * brightness, 0, 255).astype(np.uint8)


def _make(
    folder: Path, seed: int, distorted: bool, width: float, index: int, numbers: list[int]
) -> list[str]:
    rng = np.random.default_rng([seed, index])
    defective = index % 2 == 0
    part = make_part(rng, SIZE, defective=defective)
    place = f"{'test' if index % 7 == 0 else 'train'}/{'def' if defective else 'ok'}_front"
    paths = []
    for number in numbers:
        image, quality = photograph(part, rng).image, PLAIN_QUALITY
        if distorted:
            image, quality = distort(image, rng, width=width), int(rng.integers(70, 96))
        path = f"{place}/cast_{number}.jpeg"
        _, content = cv2.imencode(".jpeg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        (folder / path).write_bytes(content.tobytes())
        paths.append(path)
    return paths
