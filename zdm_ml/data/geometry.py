"""The shape of a synthetic impeller and the fields it is drawn with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Reals = npt.NDArray[np.floating]

# Radii in pixels of a 300 px image, read off the public top views of pump impellers.
BORE, HUB, CAVITY, RING, GROOVE, RIM = 25.5, 34.0, 64.0, 72.0, 76.0, 117.0
REFERENCE_SIZE = 300


@dataclass(frozen=True)
class Grid:
    """Pixel coordinates [size, size] around the middle, in pixels of a 300 px image."""

    size: int
    x: Field
    y: Field
    radius: Field
    angle: Field

    @property
    def scale(self) -> float:
        """Pixels of this grid per pixel of a 300 px image."""
        return self.size / REFERENCE_SIZE

    def distance(self, x: float, y: float) -> Field:
        """Return the distance of every pixel to a point."""
        return np.asarray(np.hypot(self.x - np.float32(x), self.y - np.float32(y)))


@lru_cache(maxsize=4)
def make_grid(size: int) -> Grid:
    """Return the grid of a size; shared, so never write to its fields."""
    step = REFERENCE_SIZE / size
    axis = ((np.arange(size) - (size - 1) / 2) * step).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return Grid(size, x, y, np.hypot(x, y), np.arctan2(y, x))


def inside(distance: Reals, edge: Reals | float, softness: float = 1.0) -> Field:
    """Return 1 where `distance` is below `edge`, 0 above, with an antialiased border."""
    ramp = (edge - distance) / np.float32(softness) + np.float32(0.5)
    return np.asarray(np.clip(ramp, 0, 1), np.float32)


def noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Return smooth noise [size, size] of about unit variance with `cells` bumps per side."""
    coarse = rng.standard_normal((cells + 3, cells + 3)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def around(rng: np.random.Generator, angle: Field, bumps: int) -> Field:
    """Return smooth noise of unit variance that depends on the angle alone and closes on itself."""
    knots = rng.standard_normal(bumps)
    turn = np.linspace(0, bumps, 1025)
    curve = np.interp(turn, np.arange(bumps + 1), np.append(knots, knots[0]))
    return by_angle(angle, curve[:-1])


def by_angle(angle: Field, curve: npt.NDArray[np.float64]) -> Field:
    """Look up a curve over one turn, beginning at angle -pi, at every pixel's angle."""
    index = ((angle + np.float32(np.pi)) * np.float32(len(curve) / (2 * np.pi))).astype(np.int32)
    looked_up: Field = curve.astype(np.float32)[index % len(curve)]
    return looked_up
