"""Heat maps for people: the image, what the model sees in it, and what it makes of that."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.evaluation.map_licence import MapLicence
from zdm_ml.evaluation.saliency import Grey, Heat
from zdm_ml.evaluation.verdicts import Verdict, Verdicts

NARROWEST, WIDEST = 480, 1440
"""Pixels: so that the words can be read, and a photograph of many megapixels be sent."""

_STRENGTH = 0.6
"""Share of colour where the map is 1: the metal stays visible beneath."""

_INK, _PAPER, _WARNING = (40, 40, 40), (255, 255, 255), (0, 0, 200)
_LINE, _LETTER = 20, 9
"""Height of a line and width of a wide letter, in pixels."""

Colours = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Finding:
    """What a model, by a name that people know, said of an image."""

    model: str
    score: float
    verdicts: Verdicts

    @property
    def verdict(self) -> Verdict:
        """Say ok, defect or review."""
        return self.verdicts.of(self.score)


def overlay(image: Grey, heat: Heat, finding: Finding, licence: MapLicence) -> bytes:
    """Return a PNG: the image with the map on it, score and verdict, and what the map is worth.

    `image` uint8 and `heat` float32 are [H, W]. A map without a licence is marked in red, in words.
    """
    width = min(max(image.shape[1], NARROWEST), WIDEST)
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    said = (
        f"{finding.verdict}: score {finding.score:.4f}, defect from"
        f" {finding.verdicts.defect_from:.4f} on"
        f" ({finding.model})"
    )
    worth, ink = f"licensed: {licence.reason}", _INK
    if not licence.licensed:
        worth, ink = f"NOT LICENSED: {licence.reason}", _WARNING
    picture = mixed(image, heat, size)
    strips = [picture, *_written(said, width, _INK), *_written(worth, width, ink)]
    _, content = cv2.imencode(".png", np.vstack(strips))
    return bytes(content.tobytes())


def mixed(image: Grey, heat: Heat, size: tuple[int, int]) -> Colours:
    """Return the image as BGR with colours laid over it, the more the higher the map."""
    grey, strength = cv2.resize(image, size), cv2.resize(heat, size)
    colours = cv2.applyColorMap((strength * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    share = (strength * _STRENGTH)[:, :, None]
    return np.asarray(grey[:, :, None] * (1 - share) + colours * share, dtype=np.uint8)


def _written(text: str, width: int, ink: tuple[int, int, int]) -> list[Colours]:
    strips = []
    for line in textwrap.wrap(text, width // _LETTER):
        strip = np.full((_LINE, width, 3), _PAPER, np.uint8)
        place = (_LINE // 3, 2 * _LINE // 3)
        cv2.putText(strip, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, 1, cv2.LINE_AA)
        strips.append(strip)
    return strips
