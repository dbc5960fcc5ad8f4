"""Casting defects, drawn on a synthetic part together with the pixels that they cover."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.geometry import GROOVE, RIM, Field, Grid, Reals, around, inside, noise

Rng = np.random.Generator


@dataclass(frozen=True)
class Pits:
    """Round holes: smallest and largest radius, how ragged, and how far from the middle they lie.

    All but `raggedness` in pixels of a 300 px image, [low, high].
    """

    radius: tuple[float, float]
    raggedness: float
    reach: tuple[float, float]


PINHOLES = Pits((1.9, 3.2), 0.15, (GROOVE + 4, RIM - 4))
BLOW_HOLES = Pits((4.0, 7.5), 0.35, (GROOVE + 6, RIM - 2))


@dataclass(frozen=True)
class Layer:
    """Paint: `cover` in [0, 1] and grey `level`, each [size, size]; `mask` marks the defect."""

    cover: Field
    level: Field
    mask: npt.NDArray[np.bool_]

    def over(self, image: Field) -> Field:
        """Return the image with the layer painted on it."""
        return image + self.cover * (self.level - image)


def draw_defect(kind: str, rng: Rng, grid: Grid) -> Layer:
    """Return one defect of a kind in `KINDS`, at a random place where that kind occurs."""
    return KINDS[kind](rng, grid)


def draw_pit(pits: Pits, rng: Rng, grid: Grid) -> Layer:
    """Return a dark pit with a bright lip on one side, anywhere within its reach."""
    x, y = _place(rng, *pits.reach)
    radius = float(rng.uniform(*pits.radius))
    stretch, turn = rng.uniform(0.65, 1.0), rng.uniform(0, 2 * np.pi)
    along = (grid.x - x) * np.cos(turn) + (grid.y - y) * np.sin(turn)
    across = (grid.y - y) * np.cos(turn) - (grid.x - x) * np.sin(turn)
    ragged = 1 + pits.raggedness * noise(rng, grid.size, 50)
    distance = np.hypot(along, across / stretch) * np.clip(ragged, 0.5, 1.8)
    pit = inside(distance, radius, 1.5)
    lit = np.cos(np.arctan2(across, along) - rng.uniform(0, 2 * np.pi))
    lip = inside(distance, radius + 1.6, 1.5) * (1 - pit) * np.clip(lit, 0, 1) * 0.8
    depth = np.clip(1.2 - distance / radius, 0.3, 1)
    level = np.where(pit > lip, 85 - 65 * depth, 232)
    return _layer(np.maximum(pit, lip), level, pit > 0.4)


def _burr(rng: Rng, grid: Grid) -> Layer:
    """Draw ragged flash that stands out from the rim along several arcs."""
    arcs = np.zeros(grid.angle.shape)
    for _ in range(rng.integers(2, 6)):
        middle, half = rng.uniform(-np.pi, np.pi), rng.uniform(0.12, 0.6)
        apart = np.abs(np.angle(np.exp(1j * (grid.angle - middle))))
        arcs = np.maximum(arcs, np.clip((half - apart) / 0.08, 0, 1))
    clumps = np.clip(around(rng, grid.angle, 26) + 0.2, 0, 3) ** 1.5
    height = 1.0 + 3.4 * clumps + 1.3 * np.abs(around(rng, grid.angle, 110))
    inner = RIM - arcs * (0.6 + 1.2 * np.abs(around(rng, grid.angle, 60)))
    flash = inside(grid.radius, RIM + arcs * height, 1.4) * (1 - inside(grid.radius, inner, 1.4))
    flecks = np.clip(noise(rng, grid.size, 70) - 1.15, 0, 1) * 190
    level = 32 + 12 * noise(rng, grid.size, 40) + flecks
    return _layer(flash * np.clip(arcs * 2, 0, 1), level, (flash * arcs) > 0.4)


def _scratch(rng: Rng, grid: Grid) -> Layer:
    """Draw one to four nearly parallel gouges, each a dark line beside a bright one."""
    x, y = _place(rng, GROOVE + 12, RIM - 12)
    turn, length = rng.uniform(0, np.pi), rng.uniform(16, 44)
    dark, bright = (np.zeros((grid.size, grid.size), np.uint8) for _ in range(2))
    for _ in range(rng.integers(1, 5)):
        shift, lean = rng.normal(0, 3.0, 2), rng.normal(0, 0.06)
        step = np.array([np.cos(turn + lean), np.sin(turn + lean)]) * length * rng.uniform(0.3, 0.6)
        start, end = np.array([x, y]) + shift - step, np.array([x, y]) + shift + step
        _line(dark, grid, start, end)
        side = np.array([-step[1], step[0]]) / np.hypot(*step) * 1.3
        _line(bright, grid, start + side, end + side)
    plate = inside(grid.radius, RIM - 1) * (1 - inside(grid.radius, GROOVE + 1))
    gouge, edge = dark / 255.0 * plate, bright / 255.0 * plate * 0.6
    level = np.where(gouge >= edge, 62, 225)
    return _layer(np.maximum(gouge * 0.85, edge), level, gouge > 0.3)


def _shrinkage(rng: Rng, grid: Grid) -> Layer:
    """Draw a spongy patch: a dull hollow full of branching pores."""
    x, y = _place(rng, GROOVE + 8, RIM - 10)
    radius = rng.uniform(8, 15)
    outline = grid.distance(x, y) * np.clip(1 + 0.3 * noise(rng, grid.size, 28), 0.5, 1.7)
    patch = inside(outline, float(radius), 4.0)
    pores = np.clip(1.1 - np.abs(noise(rng, grid.size, 75)) * 2.6, 0, 1)
    cover = patch * (0.3 + 0.6 * pores)
    return _layer(cover, 105 - 75 * pores, patch > 0.4)


KINDS: dict[str, Callable[[Rng, Grid], Layer]] = {
    "pinhole": partial(draw_pit, PINHOLES),
    "blow_hole": partial(draw_pit, BLOW_HOLES),
    "burr": _burr,
    "scratch": _scratch,
    "shrinkage": _shrinkage,
}


def _place(rng: Rng, inner: float, outer: float) -> tuple[float, float]:
    """Return a point on the flange, uniform over the ring's area."""
    radius = np.sqrt(rng.uniform(inner**2, outer**2))
    turn = rng.uniform(0, 2 * np.pi)
    return float(radius * np.cos(turn)), float(radius * np.sin(turn))


def _line(
    canvas: npt.NDArray[np.uint8],
    grid: Grid,
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
) -> None:
    middle = (grid.size - 1) / 2
    first, last = (
        tuple(int(round((value * grid.scale + middle) * 16)) for value in point)
        for point in (start, end)
    )
    thickness = max(1, round(1.2 * grid.scale))
    cv2.line(canvas, first, last, 255, thickness, cv2.LINE_AA, shift=4)


def _layer(cover: Reals, level: Reals, mask: npt.NDArray[np.bool_]) -> Layer:
    return Layer(cover.astype(np.float32), np.clip(level, 5, 250).astype(np.float32), mask)
