"""What the castings of a dataset have in common to the eye, and each image seen through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from zdm_ml.data.fingerprints import Match, Spectra, face, match, mean_power, spectra, whiten
from zdm_ml.data.frames import Frame, outline_frame
from zdm_ml.data.images import Grey
from zdm_ml.data.ring import Template, find_frame, learn_template

Way = Literal["ring", "outline"]
"""How a casting was found in an image: by its rings, or by the outline of whatever is there."""

SIDE = 256
RIM = 108.0
"""Radius in pixels of the rim in a straightened picture of `SIDE` pixels."""


@dataclass(frozen=True)
class Seen:
    """One image's frame, the way it was found, and the raw spectrum [radii, harmonics]."""

    frame: Frame
    way: Way
    spectrum: Spectra


@dataclass(frozen=True)
class Looks:
    """The rings that a dataset's castings share; None where they are not round."""

    template: Template | None

    def see(self, image: Grey) -> Seen:
        """Find the casting in a grey image, uint8 [H, W], and take its fingerprint."""
        found = find_frame(image, self.template) if self.template else None
        frame = found or outline_frame(image)
        way: Way = "ring" if found else "outline"
        return Seen(frame, way, spectra(face(smooth(image), frame)[None])[0])

    def aligned_pair(self, first: Grey, second: Grey) -> tuple[Grey, Grey, Match]:
        """Return both castings straightened, uint8 [256, 256], the second turned onto the first."""
        seen = [self.see(first), self.see(second)]
        raw = np.stack([each.spectrum for each in seen])
        left, right = whiten(raw, mean_power(raw))
        found = match(left, right)
        turn = found.turn if found.mirrored else -found.turn
        straight = straighten(first, seen[0].frame)
        turned = straighten(second, seen[1].frame, turn=turn, mirrored=found.mirrored)
        return straight, turned, found


def learn_looks(sample: Sequence[Grey]) -> Looks:
    """Learn from some tens of grey images of a dataset, in a fixed order."""
    return Looks(learn_template(sample))


def smooth(image: Grey) -> Grey:
    """Return the image without the finest noise, which an unwrapped face would alias."""
    blurred = cv2.GaussianBlur(image, (0, 0), max(image.shape) / 400)
    return np.asarray(blurred, dtype=np.uint8)


def straighten(image: Grey, frame: Frame, *, turn: float = 0.0, mirrored: bool = False) -> Grey:
    """Return the casting round and in the middle, uint8 [256, 256], turned by `turn` radians."""
    axis = (np.arange(SIDE) - (SIDE - 1) / 2) / RIM
    x, y = np.meshgrid(axis, -axis if mirrored else axis)
    points = np.stack(
        [np.cos(turn) * x - np.sin(turn) * y, np.sin(turn) * x + np.cos(turn) * y]
    ).reshape(2, -1)
    at = (frame.centre[:, None] + frame.matrix @ points).astype(np.float32)
    return np.asarray(
        cv2.remap(
            image,
            at[0].reshape(SIDE, SIDE),
            at[1].reshape(SIDE, SIDE),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )
