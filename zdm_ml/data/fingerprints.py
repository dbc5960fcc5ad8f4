"""Fingerprints: the face of a casting unwrapped to radius and angle, compared at every turn.

The cross-correlation over the angle is computed through Fourier spectra (Reddy and Chatterji, "An
FFT-based technique for translation, rotation and scale-invariant image registration", 1996); a
mirrored view has the conjugate spectrum. Spectra are whitened by their mean power, so that what
all castings have in common counts little and what is particular to one counts much.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.frames import Frame, unwrap
from zdm_ml.data.images import Grey

ANGLES = 256
RADII = np.linspace(0.6, 0.93, 40)
"""The zone of the face that is compared, as shares of the rim's radius."""

HARMONICS = 63
FINE = 3.0
"""Details wider than this many samples are taken for lighting and removed."""

_MARGIN = 16

Spectra = npt.NDArray[np.complex64]
"""Whitened spectra of unit norm [N, radii, harmonics]."""


@dataclass(frozen=True)
class Match:
    """How alike two images are, in [-1, 1]; `turn` in radians brings `mirrored` b onto a."""

    similarity: float
    turn: float
    mirrored: bool


def face(image: Grey, frame: Frame) -> npt.NDArray[np.float32]:
    """Return the fine detail of a casting's face, float32 [radii, angles], lighting removed.

    The image is best smoothed by about a sample; what lies outside of it is zero.
    """
    polar = unwrap(image, frame, RADII, ANGLES).astype(np.float32)
    wrapped = cv2.copyMakeBorder(polar, 0, 0, _MARGIN, _MARGIN, cv2.BORDER_WRAP)
    detail = wrapped - cv2.GaussianBlur(wrapped, (0, 0), FINE)
    strength = cv2.GaussianBlur(detail * detail, (0, 0), 2 * FINE)
    detail = np.clip(detail / np.sqrt(strength + 9.0), -3, 3)[:, _MARGIN:-_MARGIN]
    detail *= _inside(image, frame)
    return np.asarray(detail - detail.mean(axis=1, keepdims=True), dtype=np.float32)


def _inside(image: Grey, frame: Frame) -> npt.NDArray[np.float32] | float:
    reach = RADII[-1] * np.linalg.norm(frame.matrix, axis=1)
    height, width = image.shape
    if (frame.centre > reach).all() and (frame.centre + reach < (width - 1, height - 1)).all():
        return 1.0
    return (unwrap(np.full_like(image, 255), frame, RADII, ANGLES, outside=0) > 254).astype(
        np.float32
    )


def spectra(faces: npt.NDArray[np.float32]) -> Spectra:
    """Return the spectra of faces [N, radii, angles] over the angle, without the mean."""
    return np.fft.rfft(faces, axis=2)[:, :, 1 : HARMONICS + 1].astype(np.complex64)


def mean_power(raw: Spectra) -> npt.NDArray[np.float32]:
    """Return the mean power [radii, harmonics] of spectra, with a floor for what is weak."""
    power = np.mean(raw.real**2 + raw.imag**2, axis=0)
    return np.asarray(power + 0.5 * power.mean(), dtype=np.float32)


def whiten(raw: Spectra, power: npt.NDArray[np.float32]) -> Spectra:
    """Return the spectra divided by the root of the mean power, each of unit norm."""
    white = raw / np.sqrt(power)
    norms = np.sqrt(np.sum(white.real**2 + white.imag**2, axis=(1, 2), keepdims=True))
    return np.asarray(white / np.maximum(norms, 1e-9), dtype=np.complex64)


def magnitudes(white: Spectra) -> npt.NDArray[np.float32]:
    """Return what neither a turn nor a mirror changes, float32 [N, radii x harmonics]."""
    return np.abs(white).reshape(len(white), -1)


def similarities(left: Spectra, right: Spectra) -> npt.NDArray[np.float32]:
    """Return the similarity of each image in `left` [N] with each in `right` [M], [N, M]."""
    best = np.full((len(left), len(right)), -1, dtype=np.float32)
    by_harmonic = left.transpose(2, 0, 1)
    for other in (np.conj(right), right):
        cross = np.matmul(by_harmonic, other.transpose(2, 1, 0))
        np.maximum(best, _correlation(cross.transpose(1, 2, 0)).max(axis=2), out=best)
    return best


def pair_similarities(
    white: Spectra, pairs: npt.NDArray[np.int64], *, block: int = 4096
) -> npt.NDArray[np.float32]:
    """Return the similarity of each pair of images [P, 2], float32 [P]."""
    values = np.empty(len(pairs), dtype=np.float32)
    for start in range(0, len(pairs), block):
        chosen = pairs[start : start + block]
        left, right = white[chosen[:, 0]], white[chosen[:, 1]]
        turned = [
            _correlation(np.einsum("prh,prh->ph", left, other)).max(axis=1)
            for other in (np.conj(right), right)
        ]
        values[start : start + len(chosen)] = np.maximum(*turned)
    return values


def match(left: Spectra, right: Spectra) -> Match:
    """Return how two spectra [radii, harmonics] are alike, and the turn at which they are."""
    tried = [
        (float(curve.max()), int(curve.argmax()), mirrored)
        for mirrored, other in ((False, np.conj(right)), (True, right))
        for curve in (_correlation(np.sum(left * other, axis=0)[None])[0],)
    ]
    similarity, shift, mirrored = max(tried)
    return Match(similarity, shift * 2 * np.pi / ANGLES, mirrored)


def _correlation(cross: npt.NDArray[np.complex64]) -> npt.NDArray[np.float32]:
    """Return the correlation over all turns from cross spectra [..., harmonics]."""
    padded = np.zeros((*cross.shape[:-1], ANGLES // 2 + 1), dtype=np.complex64)
    padded[..., 1 : HARMONICS + 1] = cross
    return np.asarray(np.fft.irfft(padded, n=ANGLES, axis=-1) * (ANGLES / 2), dtype=np.float32)
