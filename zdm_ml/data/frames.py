"""The pose of a casting in an image, and the image seen from it in polar coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.images import Grey

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """A part's pose: pixel = `centre` [2] + `matrix` [2, 2] @ (x, y), the rim where |(x, y)| = 1.

    `fit` in [-1, 1] is the correlation of the radial profile with the dataset's.
    """

    centre: Reals
    matrix: Reals
    fit: float


def outline_frame(image: Grey) -> Frame:
    """Return a frame from the outline of whatever stands out from the border of the image.

    Second moments of the silhouette normalise zoom and shear of any shape (Rothe, Suesse and
    Voss, "The method of normalization to determine invariants", 1996). Without a silhouette the
    frame is the image itself.
    """
    height, width = image.shape
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    apart = cv2.absdiff(image, np.full_like(image, np.median(border)))
    _, mask = cv2.threshold(cv2.GaussianBlur(apart, (0, 0), 2), 0, 255, cv2.THRESH_OTSU)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(max(contours, key=cv2.contourArea)) if contours else None
    moments = cv2.moments(hull) if hull is not None else {"m00": 0.0}
    if moments["m00"] < 0.02 * height * width:
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        return Frame(middle, np.eye(2) * min(middle), 0.0)
    centre = np.array([moments["m10"], moments["m01"]]) / moments["m00"]
    spread = (
        np.array([[moments["mu20"], moments["mu11"]], [moments["mu11"], moments["mu02"]]])
        / moments["m00"]
    )
    values, vectors = np.linalg.eigh(spread)
    # A disc of radius 1 has second moments of 1/4.
    return Frame(centre, 2 * vectors @ np.diag(np.sqrt(np.maximum(values, 1))) @ vectors.T, 0.0)


def unwrap(
    image: Grey,
    frame: Frame,
    radii: Reals,
    angles: int,
    *,
    outside: int | None = None,
) -> Grey:
    """Return the image over radius and angle, uint8 [len(radii), angles].

    Beyond the image its border goes on, or the grey level `outside`.
    """
    x, y = (frame.matrix @ _circle(angles)).astype(np.float32)
    out = radii.astype(np.float32)[:, None]
    return np.asarray(
        cv2.remap(
            image,
            np.float32(frame.centre[0]) + out * x,
            np.float32(frame.centre[1]) + out * y,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT,
            borderValue=outside or 0,
        )
    )


@lru_cache(maxsize=8)
def _circle(angles: int) -> Reals:
    turn = np.arange(angles) * (2 * np.pi / angles)
    return np.stack([np.cos(turn), np.sin(turn)])
