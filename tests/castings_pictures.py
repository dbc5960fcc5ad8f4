"""Rendered castings and other things to recognise, in poses that are known."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.images import Grey
from zdm_ml.data.rendering import make_part, photograph

SIZE = 200

Reals = npt.NDArray[np.float64]


@lru_cache(maxsize=4)
def photographs(parts: int, views: int, *, seed: int = 91) -> tuple[tuple[Grey, ...], ...]:
    """`views` photographs of each of some castings; shared, so never write to them."""
    result = []
    for index in range(parts):
        rng = np.random.default_rng([seed, index])
        part = make_part(rng, SIZE, defective=index % 2 == 0)
        result.append(tuple(photograph(part, rng).image for _ in range(views)))
    return tuple(result)


def pose(
    *, turn: float = 0.0, mirrored: bool = False, zoom: float = 1.0, shear: float = 0.0
) -> Reals:
    """The matrix [2, 2] of a pose; angles in radians."""
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    sheared = np.array([[1.0, shear], [0.0, 1.0]])
    return np.asarray(sheared @ turned @ np.diag([-1.0 if mirrored else 1.0, 1.0]) * zoom)


def posed(image: Grey, matrix: Reals, shift: tuple[float, float] = (0.0, 0.0)) -> Grey:
    """The picture on a ground a third wider, seen from another pose."""
    return np.asarray(
        cv2.warpAffine(
            image,
            affine(image, matrix, shift),
            (round(image.shape[1] * 4 / 3), round(image.shape[0] * 4 / 3)),
            borderMode=cv2.BORDER_REPLICATE,
        )
    )


def affine(image: Grey, matrix: Reals, shift: tuple[float, float] = (0.0, 0.0)) -> Reals:
    """The map [2, 3] from pixels of a picture to pixels of the posed one."""
    height, width = image.shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([matrix, middle * 4 / 3 + np.array(shift) - matrix @ middle])


@lru_cache(maxsize=64)
def plate(seed: int) -> Grey:
    """A long notched bar of rough metal, not round at all, on a bright and even ground."""
    rng = np.random.default_rng([seed, 3])
    grain = rng.normal(0, 1, (SIZE, SIZE)).astype(np.float32)
    metal = 90 + 90 * cv2.GaussianBlur(grain, (0, 0), 2.5)
    mask = np.zeros((SIZE, SIZE), np.float32)
    corners = np.array(
        [[30, 74], [160, 70], [166, 126], [112, 122], [100, 108], [88, 124], [34, 128]]
    )
    cv2.fillPoly(mask, [corners + rng.integers(-4, 5, corners.shape)], 1.0)
    mask = cv2.GaussianBlur(mask, (0, 0), 0.8)
    return np.clip(mask * metal + (1 - mask) * 225, 0, 255).astype(np.uint8)
