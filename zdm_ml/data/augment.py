"""Random flips, small affine changes and lighting for grey training images, on the CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.params import AugmentParams

Grey = npt.NDArray[np.uint8]

_LEVELS = np.arange(256, dtype=np.float64)
_THREADS = 8


class Augmenter:
    """Augments batches; what an image becomes depends on (seed, epoch, its index) alone.

    So a training that resumes at an epoch sees the same pictures, whatever the batch size, the
    order or the number of threads. Use it as a context: it holds a small thread pool.
    """

    def __init__(self, params: AugmentParams, seed: int, threads: int = _THREADS) -> None:
        self._params = params
        self._seed = seed
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="augment")
        # Images are the unit of parallel work; OpenCV's own threads would only compete.
        cv2.setNumThreads(1)

    def __enter__(self) -> Augmenter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def batch(
        self, images: Grey, epoch: int, indices: Sequence[int] | npt.NDArray[np.int64]
    ) -> Grey:
        """Return augmented copies, uint8 [B, S, S]; `indices` are the images' places in the set."""
        result = np.empty_like(images)

        def fill(place: int) -> None:
            rng = np.random.default_rng((self._seed, epoch, int(indices[place]) + 1))
            augment(images[place], self._params, rng, out=result[place])

        for _ in self._pool.map(fill, range(len(images))):
            pass
        return result


def augment(image: Grey, params: AugmentParams, rng: np.random.Generator, *, out: Grey) -> None:
    """Write one augmented copy of `image`, uint8 [S, S], to `out`.

    Flips and the affine change are one warp, so that a picture is interpolated once. Beyond the
    old border the outermost pixels are repeated: torchvision's black fill would draw wedges that
    no camera sees, and mirroring would draw a second rim that looks like a burr.
    """
    draws = rng.random(8)
    warp = warp_matrix(params, draws, image.shape[0])
    cv2.warpAffine(
        image,
        warp,
        (image.shape[1], image.shape[0]),
        dst=out,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    cv2.LUT(out, lighting_table(params, draws, float(out.mean())), dst=out)


def warp_matrix(
    params: AugmentParams, draws: npt.NDArray[np.float64], size: int
) -> npt.NDArray[np.float64]:
    """Return the 2x3 source-to-target matrix: flips, then rotation, scale and shift.

    `draws` are uniform in [0, 1); the centre of rotation is the image's, as in torchvision's
    `RandomAffine`.
    """
    mirror_x = -1.0 if draws[0] < params.horizontal_flip else 1.0
    mirror_y = -1.0 if draws[1] < params.vertical_flip else 1.0
    angle = math.radians(_between(-params.degrees, params.degrees, draws[2]))
    scale = _between(params.scale[0], params.scale[1], draws[3])
    reach = params.translate * size
    shift = np.array([_between(-reach, reach, draws[4]), _between(-reach, reach, draws[5])])
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror_x, mirror_y])
    centre = np.full(2, (size - 1) / 2)
    offset = centre - linear @ centre + shift
    return np.hstack([linear, offset[:, None]])


def lighting_table(
    params: AugmentParams, draws: npt.NDArray[np.float64], mean: float
) -> npt.NDArray[np.uint8]:
    """Return the uint8 [256] lookup table of a brightness and a contrast factor around 1.

    Contrast turns about the picture's mean grey, as in torchvision's `ColorJitter`; there the two
    come in random order, which is the same for grey except where values clip.
    """
    brightness = _between(1 - params.jitter, 1 + params.jitter, draws[6])
    contrast = _between(1 - params.jitter, 1 + params.jitter, draws[7])
    levels = brightness * (contrast * (_LEVELS - mean) + mean)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _between(low: float, high: float, draw: float) -> float:
    return low + (high - low) * float(draw)
