"""Where the round part lies in a photograph: its frame, up to rotation and mirroring.

Concentric circles of a part become concentric ellipses under rotation, zoom, shear and shift. One
ellipse gives the pose but for the scale, the radial profile gives the scale, and the edges of all
rings together make it exact to a fraction of a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.frames import Frame, Reals, unwrap
from zdm_ml.data.images import Grey

SURE = 0.9
"""A radial profile that fits the template so well needs no second candidate."""

SMALL = 160
"""Side in pixels at which ellipses are looked for."""

ANGLES = 128
"""Directions in which the rings' edges are looked at."""

_WIDE = np.linspace(np.log(0.2), np.log(5.0), 224)
_NEAR = np.linspace(np.log(0.2), np.log(1.25), 112)
_FACE = np.linspace(np.log(0.64), np.log(1.1), 64)
_TURN = np.arange(ANGLES) * (2 * np.pi / ANGLES)
_POSE = np.stack(
    [np.ones(ANGLES), *(f(times * _TURN) for times in (1, 2) for f in (np.cos, np.sin))], axis=1
)


@dataclass(frozen=True)
class Template:
    """The edges that the parts of a dataset have in common, over the log of the radius."""

    edges: Reals


def learn_template(images: Sequence[Grey]) -> Template | None:
    """Return the common radial profile of some images, None where they hold no rings.

    Profiles are aligned to each other in scale and their median taken; the outermost strong edge
    is put where the radius is 1.
    """
    firsts = [(image, next(_ellipses(image), None)) for image in images]
    profiles = [_profile(image, frame) for image, frame in firsts if frame]
    if len(profiles) < max(3, len(images) // 2):
        return None
    edges = profiles[0]
    for _ in range(3):
        aligned = sorted(
            ((_shift(profile, edges), profile) for profile in profiles),
            key=lambda pair: -pair[0][1],
        )
        kept = aligned[: max(3, int(0.8 * len(aligned)))]
        edges = np.median([np.roll(profile, -round(shift)) for (shift, _), profile in kept], axis=0)
    strong = np.flatnonzero(np.abs(edges) > 0.25 * np.abs(edges).max())
    rim = int(np.searchsorted(_WIDE, 0.0))
    edges = np.roll(edges, rim - int(strong[-1]))
    return Template(edges / np.linalg.norm(edges))


def find_frame(image: Grey, template: Template, *, least_fit: float = 0.5) -> Frame | None:
    """Return the frame of the round part in an image, None where no ring fits the template."""
    best: tuple[float, Frame] | None = None
    for frame in _ellipses(image):
        shift, fit = _shift(_profile(image, frame), template.edges)
        if best is None or fit > best[0]:
            best = fit, _scaled(frame, shift, fit)
        if fit > SURE:
            break
    if best is None or best[0] < least_fit:
        return None
    frame = _circularised(image, best[1])
    shift, fit = _shift(_profile(image, frame), template.edges, most=24)
    return _scaled(frame, shift, fit) if fit >= least_fit else None


def _ellipses(image: Grey, most: int = 2) -> Iterator[Frame]:
    """Yield the closed contours that are the best ellipses, as frames, threshold by threshold."""
    scale = SMALL / max(image.shape)
    middle = (1 / scale - 1) / 2
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    level, _ = cv2.threshold(small, 0, 255, cv2.THRESH_OTSU)
    for share in (1.0, 0.75, 1.2):
        mask = (small < level * share).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        long = (np.asarray(each, np.int32) for each in contours if len(each) >= SMALL // 4)
        found = [each for contour in long if (each := _ellipse(contour, small.shape))]
        for _, frame in sorted(found, key=lambda pair: pair[0])[:most]:
            yield Frame(frame.centre / scale + middle, frame.matrix / scale, 0.0)


def _ellipse(contour: npt.NDArray[np.int32], shape: tuple[int, ...]) -> tuple[float, Frame] | None:
    """Return how far a contour is from an ellipse and that ellipse, None for other shapes."""
    x, y, width, height = cv2.boundingRect(contour)
    if min(x, y) <= 1 or x + width >= shape[1] - 1 or y + height >= shape[0] - 1:
        return None
    area = cv2.contourArea(contour)
    if area < 0.01 * shape[0] * shape[1]:
        return None
    (cx, cy), axes, angle = cv2.fitEllipseDirect(contour)
    if not np.isfinite([cx, cy, *axes]).all() or min(axes) < 0.5 * max(axes):
        return None
    if not 0.93 < area / (np.pi * axes[0] * axes[1] / 4) < 1.07:
        return None
    turn = np.deg2rad(angle)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = turned @ np.diag(np.asarray(axes) / 2) @ turned.T
    centre = np.array([cx, cy])
    radius = np.hypot(*np.linalg.solve(matrix, (contour[:, 0, :] - centre).T))
    return float(radius.std()), Frame(centre, matrix, 0.0)


def _profile(image: Grey, frame: Frame) -> Reals:
    """Return the edges over the log radius: the gradient of the mean over all directions."""
    level = unwrap(image, frame, np.exp(_WIDE), 64).mean(axis=1)
    level = np.convolve(np.pad(level, 2, "edge"), [0.1, 0.2, 0.4, 0.2, 0.1], "valid")
    return np.asarray(np.gradient(level))


def _shift(profile: Reals, template: Reals, most: int | None = None) -> tuple[float, float]:
    """Return by how many steps a profile lies outside a template, and their correlation."""
    size = len(template)
    most = most or size // 2
    spectrum = np.fft.rfft(profile, 2 * size) * np.conj(np.fft.rfft(template, 2 * size))
    scores = np.roll(np.fft.irfft(spectrum, 2 * size), most)[: 2 * most + 1]
    scores /= np.linalg.norm(profile) * np.linalg.norm(template) + 1e-9
    peak = int(scores.argmax())
    return peak - most + float(_vertex(scores[None, :], np.array([peak]))[0]), float(scores[peak])


def _vertex(
    values: npt.NDArray[np.floating], peaks: npt.NDArray[np.intp]
) -> npt.NDArray[np.floating]:
    """Return, per row, how far from its peak sample the parabola through its neighbours peaks."""
    rows, inner = np.arange(len(values)), np.clip(peaks, 1, values.shape[1] - 2)
    before, at, after = (values[rows, inner + step] for step in (-1, 0, 1))
    bend = before - 2 * at + after
    offset = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, -1), 0)
    return np.asarray(np.clip(offset, -0.5, 0.5) * (inner == peaks))


def _scaled(frame: Frame, shift: float, fit: float) -> Frame:
    step = _WIDE[1] - _WIDE[0]
    return Frame(frame.centre, frame.matrix * np.exp(shift * step), fit)


def _circularised(image: Grey, frame: Frame) -> Frame:
    """Correct centre and shape until every ring's edge is at one radius in all directions.

    First by the strong edges of the whole part, which are far apart; then by the face alone, whose
    faint turning marks count as much as its borders: rings at another depth seem shifted when the
    camera or the lamp moves.
    """
    for _ in range(2):
        polar = unwrap(image, frame, np.exp(_NEAR), ANGLES).astype(np.float32)
        edges = np.diff(cv2.GaussianBlur(polar, (1, 5), 1.2), axis=0)
        frame = _corrected(frame, edges, edges.mean(axis=1), _NEAR[1] - _NEAR[0], reach=9)
    edges = np.diff(unwrap(image, frame, np.exp(_FACE), ANGLES).astype(np.float32), axis=0)
    edges /= np.sqrt(cv2.GaussianBlur(edges * edges, (1, 15), 3.0) + 4.0)
    edges = np.asarray(cv2.GaussianBlur(edges, (5, 1), 1.0), dtype=np.float32)
    return _corrected(frame, edges, edges.mean(axis=1), _FACE[1] - _FACE[0], reach=6)


def _corrected(
    frame: Frame,
    edges: npt.NDArray[np.float32],
    common: npt.NDArray[np.float32],
    step: float,
    *,
    reach: int,
) -> Frame:
    """Return the frame in which the edges [radii, angles] lie where `common` [radii] has them.

    Per direction the edges are correlated with the common ones, up to `reach` samples away; the
    shifts are those of a moved centre (cos, sin) and another ellipse (cos 2, sin 2).
    """
    padded = np.pad(edges, ((reach, reach), (0, 0)))
    lags = range(2 * reach + 1)
    scores = np.stack([common @ padded[lag : lag + len(common)] for lag in lags], axis=1)
    peaks = scores.argmax(axis=1)
    shifts = (peaks - reach + _vertex(scores, peaks)) * step
    pose = _robust_pose(shifts, np.abs(peaks - reach) < reach)
    stretch = np.array([[1 + pose[3], pose[4]], [pose[4], 1 - pose[3]]])
    centre = frame.centre + frame.matrix @ pose[1:3]
    return Frame(centre, _symmetric(frame.matrix @ stretch), frame.fit)


def _robust_pose(shifts: npt.NDArray[np.floating], usable: npt.NDArray[np.bool_]) -> Reals:
    weights = usable.astype(np.float64)
    pose = np.zeros(_POSE.shape[1])
    for _ in range(3):
        weighted = _POSE * weights[:, None]
        pose = np.linalg.solve(weighted.T @ _POSE + 1e-6 * np.eye(5), weighted.T @ shifts)
        rest = np.abs(shifts - _POSE @ pose)
        weights = usable / np.maximum(1, rest / (1.2 * rest.mean() + 1e-6))
    return pose


def _symmetric(matrix: Reals) -> Reals:
    """Return the pose without its rotation, which the rings leave open."""
    left, stretch, _ = np.linalg.svd(matrix)
    return np.asarray(left @ np.diag(stretch) @ left.T)
