"""Rendering: one synthetic part, and photographs of it from above."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.defects import KINDS, Layer, draw_defect
from zdm_ml.data.geometry import (
    BORE,
    CAVITY,
    GROOVE,
    HUB,
    RIM,
    RING,
    Field,
    Grid,
    around,
    by_angle,
    inside,
    make_grid,
    noise,
)
from zdm_ml.data.images import Grey

Rng = np.random.Generator

BLADES = 6


@dataclass(frozen=True)
class Part:
    """One physical casting: what stays the same in every photograph of it.

    `finish` is the machined metal's texture and `blades` the light that the cavity sends back, in
    grey levels; `rim` is the radius of the outer edge at every pixel's angle.
    """

    grid: Grid
    finish: Field
    blades: Field
    rim: Field
    marks: tuple[Layer, ...]
    defects: tuple[Layer, ...]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Photograph:
    """A grey image and the mask of the part's defects, uint8 [size, size], the mask 0 or 255."""

    image: Grey
    mask: Grey


def make_part(rng: Rng, size: int, *, defective: bool) -> Part:
    """Cast and machine one part, with one to three kinds of defects where `defective`."""
    grid = make_grid(size)
    count = int(rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1])) if defective else 0
    kinds = tuple(sorted(rng.choice(list(KINDS), size=count, replace=False).tolist()))
    return Part(
        grid=grid,
        finish=_finish(rng, grid),
        blades=_blades(rng, grid),
        rim=(RIM + 0.12 * around(rng, grid.angle, 90)).astype(np.float32),
        marks=tuple(_nick(rng, grid) for _ in range(rng.integers(4, 9))),
        defects=tuple(draw_defect(kind, rng, grid) for kind in kinds),
        kinds=kinds,
    )


def photograph(part: Part, rng: Rng) -> Photograph:
    """Return one view of a part: lit anew, turned, perhaps mirrored, zoomed, sheared, noisy."""
    image = _lit(part, rng)
    mask = np.zeros(image.shape, np.uint8)
    for layer in part.defects:
        mask[layer.mask] = 255
    size = part.grid.size
    pose = _pose(rng, size)
    # Replicated borders leave the same streaks in the corners as the public images have.
    seen = cv2.warpAffine(
        image, pose, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    seen = cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.4, 0.7) * part.grid.scale)
    seen = seen + rng.standard_normal(seen.shape, dtype=np.float32) * rng.uniform(1.2, 2.2)
    seen_mask = cv2.warpAffine(mask, pose, (size, size), flags=cv2.INTER_LINEAR)
    return Photograph(
        np.clip(seen, 0, 255).astype(np.uint8), (seen_mask >= 128).astype(np.uint8) * np.uint8(255)
    )


def _finish(rng: Rng, grid: Grid) -> Field:
    """Return turning marks (fine rings, strong and faint by angle) over blotchy metal."""
    rings = np.convolve(rng.standard_normal(640), [0.25, 0.5, 0.25], "same").astype(np.float32)
    index = np.clip(grid.radius * 3, 0, 639).astype(np.int32)
    strength = np.clip(1 + 0.8 * around(rng, grid.angle, 7), 0.1, 2.4)
    blotches = 2.4 * noise(rng, grid.size, 16) + 3.0 * noise(rng, grid.size, 60)
    return np.asarray(4.2 * rings[index] * strength + blotches, dtype=np.float32)


def _blades(rng: Rng, grid: Grid) -> Field:
    """Return the edges of swept-back blades that glimmer in the cavity, each one cast anew."""
    sweep = grid.angle + np.float32(1.7) * np.log(np.maximum(grid.radius, 8) / HUB)
    phase = (sweep * BLADES / (2 * np.pi) + rng.uniform()) % 1
    edge = np.exp(-(((phase - 0.5) / 0.07) ** 2)) + 0.5 * np.exp(-(((phase - 0.75) / 0.12) ** 2))
    uneven = np.clip(0.75 + 0.5 * noise(rng, grid.size, 14), 0, 2)
    middle = np.exp(-(((grid.radius - 51) / 10) ** 2))
    return np.asarray(42 * edge * uneven * middle + 3 * noise(rng, grid.size, 60), np.float32)


def _nick(rng: Rng, grid: Grid) -> Layer:
    """Draw a handling mark that every part has and no inspector minds: faint and tiny."""
    radius = rng.choice([RIM - 1.5, GROOVE + 1.5, rng.uniform(GROOVE, RIM), RING - 1])
    turn = rng.uniform(0, 2 * np.pi)
    distance = grid.distance(radius * np.cos(turn), radius * np.sin(turn))
    cover = inside(distance, rng.uniform(0.6, 1.3), 1.6) * np.float32(rng.uniform(0.25, 0.5))
    level = np.full_like(cover, rng.choice([90.0, 235.0]))
    return Layer(cover, level, np.zeros(cover.shape, np.bool_))


def _lit(part: Part, rng: Rng) -> Field:
    """Return the part on its table under one lamp, before the camera's pose, grey levels."""
    grid, radius = part.grid, part.grid.radius
    lamp = rng.uniform(-np.pi, np.pi)
    toward = np.array([np.cos(lamp), np.sin(lamp)])
    lean = (grid.x * toward[0] + grid.y * toward[1]).astype(np.float32)
    tilt = toward * rng.uniform(1.0, 3.2)  # parallax: what lies deeper seems shifted
    metal = rng.uniform(172, 192)
    image = _table(part, rng, lean, toward)
    flange = metal * _glints(rng, grid.angle, lamp, 0.16) + part.finish
    edge = np.exp(-(((radius - part.rim + 2.2) / 1.1) ** 2)) * rng.uniform(5, 28)
    image = _paint(image, inside(radius, part.rim + 1.6, 1.4), 62.0)
    image = _paint(image, inside(radius, part.rim, 1.3), flange + edge)
    image = _paint(image, inside(grid.distance(*tilt), GROOVE, 1.6), 30 + 0.15 * lean)
    ring = metal * _glints(rng, grid.angle, lamp + 0.4, 0.22) + 0.6 * part.finish
    image = _paint(image, inside(radius, RING, 1.4), ring - 14)
    shade = 20 - 0.12 * lean + part.blades * rng.uniform(0.5, 1.1)
    image = _paint(image, inside(grid.distance(*(0.6 * tilt)), CAVITY, 2.2), shade)
    hub = metal * _glints(rng, grid.angle, lamp + 2.6, 0.14) + 0.7 * part.finish
    image = _paint(image, inside(radius, HUB, 1.5), hub - 4)
    image = _paint(image, inside(radius, BORE + 1, 1.4), 70.0)
    floor = rng.uniform(105, 150) + 1.5 * lean + 0.5 * part.finish
    floor -= 85 * np.clip((grid.distance(*(-2.5 * tilt)) - BORE + 5) / 8, 0, 1)
    image = _paint(image, inside(radius, BORE, 1.6), floor)
    for layer in part.marks + part.defects:
        image = layer.over(image)
    return np.asarray(image * rng.uniform(0.95, 1.05) + rng.uniform(-6, 6), dtype=np.float32)


def _table(part: Part, rng: Rng, lean: Field, toward: npt.NDArray[np.float64]) -> Field:
    """Return the plain bright ground: falloff away from the lamp and the part's soft shadow."""
    grid = part.grid
    ground = rng.uniform(150, 184) + rng.uniform(0.03, 0.2) * lean + 1.2 * noise(rng, grid.size, 5)
    offset = -toward * rng.uniform(3, 9)
    gap = np.maximum(grid.distance(*offset) - RIM, 0)
    shadow = rng.uniform(0.4, 0.75) * np.exp(-gap / rng.uniform(5, 12))
    return np.asarray(ground * (1 - shadow), dtype=np.float32)


def _glints(rng: Rng, angle: Field, lamp: float, strength: float) -> Field:
    """Return the factor by which turned metal is brighter or darker along each direction.

    Circular turning marks reflect a lamp in narrow sectors, opposite each other.
    """
    turn = np.linspace(-np.pi, np.pi, 1024, endpoint=False)
    curve = np.ones_like(turn)
    for side in (lamp, lamp + np.pi, lamp + np.pi / 2, lamp - np.pi / 2):
        apart = np.angle(np.exp(1j * (turn - side - rng.normal(0, 0.25))))
        width, height = rng.uniform(0.12, 0.5), rng.normal(0.25, 1.0) * strength
        curve += height * np.exp(-((np.abs(apart) / width) ** rng.uniform(1.5, 4)))
    return by_angle(angle, curve)


def _pose(rng: Rng, size: int) -> npt.NDArray[np.float64]:
    """Return the affine matrix [2, 3] of one camera position."""
    turn = rng.uniform(0, 2 * np.pi)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mirror = np.diag([float(rng.choice([-1, 1])), 1.0])
    shear = np.array([[1.0, rng.uniform(-0.1, 0.1)], [rng.uniform(-0.1, 0.1), 1.0]])
    matrix = shear @ turned @ mirror * rng.uniform(0.95, 1.12)
    middle = np.full(2, (size - 1) / 2)
    shift = rng.uniform(-7, 7, 2) * size / 300
    return np.column_stack([matrix, middle + shift - matrix @ middle])


def _paint(image: Field, cover: Field, level: Field | float) -> Field:
    return np.asarray(image + cover * (level - image), dtype=np.float32)
