"""Random turns, light, mixed castings and drawn defects for training, batches on the CPU."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.draws import CELLS, Places, Reals, draws
from zdm_ml.data.pasting import Patch, paste
from zdm_ml.recipes import AugmentParams

Grey = npt.NDArray[np.uint8]
Targets = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.float32]

SHARPNESS = 3.0
"""How suddenly one casting gives way to the one that it is mixed with."""

_LEVELS = np.arange(256, dtype=np.float64)
_THREADS = 2
_FLAGS = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR}
_MIRROR_X, _MIRROR_Y, _TURN, _SCALE, _SHIFT_X, _SHIFT_Y = range(6)
_STRETCH, _AXIS, _BRIGHTNESS, _CONTRAST, _GAMMA, _PASTE, _PATCH = range(6, 13)
_MIX = 13
_CASTING, _IMAGE = 13, 14  # of the partner


class Augmenter:
    """Augments batches on a small thread pool; use it as a context.

    `patches` are what `params.paste` pastes; without any nothing is pasted. Grey values in [0, 1]
    are normalised with `mean` and `std` by the same table that lights them, which costs nothing.
    """

    def __init__(
        self,
        params: AugmentParams,
        seed: int,
        patches: Sequence[Patch] = (),
        *,
        mean: float = 0.0,
        std: float = 1.0,
        threads: int = _THREADS,
    ) -> None:
        self._params = params
        self._mean, self._std = mean, std
        self._seed = seed
        self._patches = patches
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="augment")
        self._memory = _Memory()

    @property
    def mixes(self) -> bool:
        """Whether good parts are mixed with others."""
        return self._params.mix > 0

    def __enter__(self) -> Augmenter:
        # Images are the unit of parallel work; OpenCV's own threads would only compete.
        self._threads_before = cv2.getNumThreads()
        cv2.setNumThreads(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(self._threads_before)

    def batch(
        self,
        images: Grey,
        targets: Targets,
        epoch: int,
        places: Places,
        partners: Grey | None = None,
    ) -> tuple[Pixels, Targets]:
        """Return normalised augmented copies, float32 [B, S, S], and their targets, int64 [B].

        `places` [B] are the images' places in the epoch, `partners` [B, S, S] the good parts that
        good ones may be mixed with. A good part that got a defect pasted on is a defect.
        """
        drawn = draws(self._seed, epoch, places)
        warps = warp_matrices(self._params, drawn.uniform, images.shape[1])
        levels = lighting_tables(self._params, drawn.uniform, images)
        tables = ((levels / 255 - self._mean) / self._std).astype(np.float32)
        pasted = pasted_patches(self._params, drawn.uniform, targets, len(self._patches))
        if partners is not None:
            mixed = mixed_images(self._params, drawn.uniform, targets)
            partner_warps = warp_matrices(self._params, drawn.partner, images.shape[1])
        flags = _FLAGS[self._params.interpolation] | cv2.WARP_INVERSE_MAP
        result = self._memory.empty(images.shape)

        def fill(start: int) -> None:
            warped, other = (np.empty(images.shape[1:], np.uint8) for _ in range(2))
            for at in range(start, len(images), self._threads):
                _warp(images[at], warps[at], warped, flags)
                if partners is not None and mixed[at]:
                    _warp(partners[at], partner_warps[at], other, flags)
                    _mix(warped, other, drawn.mask[at])
                if pasted[at] >= 0:
                    paste(warped, self._patches[pasted[at]])
                if self._params.lighting:
                    _shade(warped, self._params.lighting * drawn.field[at])
                cv2.LUT(warped, tables[at], dst=result[at])

        for _ in self._pool.map(fill, range(self._threads)):
            pass
        return result, np.where(pasted >= 0, 1, targets)


class _Memory:
    """Memory of batches, used again once its arrays are gone: zeroing new pages takes a fifth."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def empty(self, shape: tuple[int, ...]) -> Pixels:
        """Return float32 of this shape with any content."""
        count = int(np.prod(shape))
        size = count * np.dtype(np.float32).itemsize
        block = self._free.pop() if self._free else bytearray(size)
        if len(block) < size:
            block = bytearray(size)
        pixels = np.frombuffer(block, np.float32, count)
        # Views refer to this array, so that it goes last.
        weakref.finalize(pixels, self._free.append, block).atexit = False
        return pixels.reshape(shape)


def warp_matrices(params: AugmentParams, uniform: Reals, size: int) -> Reals:
    """Return the matrices [B, 2, 3] from target to source pixels, as `cv2.WARP_INVERSE_MAP` reads.

    From source to target: flips, then stretch, rotation and scale about the image's centre (as in
    torchvision's `RandomAffine`), then the shift.
    """
    mirrors = np.ones((len(uniform), 2))
    mirrors[:, 0] -= 2.0 * (uniform[:, _MIRROR_X] < params.horizontal_flip)
    mirrors[:, 1] -= 2.0 * (uniform[:, _MIRROR_Y] < params.vertical_flip)
    degrees = _between(-params.degrees, params.degrees, uniform[:, _TURN])
    scale = _between(params.scale[0], params.scale[1], uniform[:, _SCALE])
    stretch = np.exp(_between(-params.stretch, params.stretch, uniform[:, _STRETCH]))
    axis = _turns(np.pi * uniform[:, _AXIS])
    along = np.zeros_like(axis)
    along[:, 0, 0], along[:, 1, 1] = scale * stretch, scale / stretch
    linear = _turns(np.radians(degrees)) @ axis @ along @ axis.transpose(0, 2, 1)
    linear = linear * mirrors[:, None, :]
    reach = params.translate * size
    shift = _between(-reach, reach, uniform[:, _SHIFT_X : _SHIFT_Y + 1])
    inverse = np.linalg.inv(linear)
    centre = np.full((2, 1), (size - 1) / 2)
    return np.concatenate([inverse, centre - inverse @ (centre + shift[:, :, None])], axis=2)


def lighting_tables(params: AugmentParams, uniform: Reals, images: Grey) -> Grey:
    """Return lookup tables, uint8 [B, 256]: brightness and contrast factors, then a gamma curve.

    Contrast turns about the picture's mean grey, as in torchvision's `ColorJitter`; there the two
    come in random order, which is the same for grey except where values clip.
    """
    means = np.array([[cv2.mean(image)[0]] for image in images])
    low, high = 1 - params.jitter, 1 + params.jitter
    brightness = _between(low, high, uniform[:, _BRIGHTNESS, None])
    contrast = _between(low, high, uniform[:, _CONTRAST, None])
    levels = brightness * (contrast * (_LEVELS - means) + means)
    if params.gamma:
        exponent = np.exp(_between(-params.gamma, params.gamma, uniform[:, _GAMMA, None]))
        levels = 255 * (np.clip(levels, 0, 255) / 255) ** exponent
    tables: Grey = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return tables


def pasted_patches(
    params: AugmentParams, uniform: Reals, targets: Targets, patches: int
) -> npt.NDArray[np.int64]:
    """Return which patch each image gets, [B], -1 for none: only good parts get one."""
    chosen = (uniform[:, _PATCH] * patches).astype(np.int64)
    wanted = (targets == 0) & (uniform[:, _PASTE] < params.paste) & (patches > 0)
    return np.where(wanted, chosen, -1)


def mixed_images(params: AugmentParams, uniform: Reals, targets: Targets) -> npt.NDArray[np.bool_]:
    """Return which images are mixed with their partners, bool [B]: only good parts are."""
    found: npt.NDArray[np.bool_] = (targets == 0) & (uniform[:, _MIX] < params.mix)
    return found


def partner_rows(partner: Reals, castings: npt.NDArray[np.int64], good: Places) -> Places:
    """Return which of the images `good` each of B is mixed with, [B], castings evenly.

    `castings` are those of `good`, sorted; `partner` [B, 16] is from `Draws`.
    """
    _, starts, counts = np.unique(castings, return_index=True, return_counts=True)
    casting = (partner[:, _CASTING] * len(starts)).astype(np.int64)
    image = (partner[:, _IMAGE] * counts[casting]).astype(np.int64)
    rows: Places = good[starts[casting] + image]
    return rows


def _mix(out: Grey, partner: Grey, mask: npt.NDArray[np.float32]) -> None:
    """Let the partner show where the mask is low, as bright and as rich in contrast as `out`."""
    own, other = out.astype(np.float32), partner.astype(np.float32)
    other = (other - other.mean()) * (own.std() / max(other.std(), 1.0)) + own.mean()
    share = 1 / (1 + np.exp(-SHARPNESS * smooth_field(mask, out.shape[0])))
    out[...] = np.clip(np.rint(other + share * (own - other)), 0, 255).astype(np.uint8)


def _warp(image: Grey, matrix: Reals, out: Grey, flags: int) -> None:
    """Warp once, so that a picture is interpolated once.

    Beyond the old border the outermost pixels are repeated: torchvision's black fill would draw
    wedges that no camera sees, and mirroring would draw a second rim that looks like a burr.
    """
    side = out.shape[0]
    cv2.warpAffine(image, matrix, (side, side), out, flags, cv2.BORDER_REPLICATE)


def _shade(out: Grey, field: npt.NDArray[np.float32]) -> None:
    """Multiply the picture by 1 + `field`, spread smoothly over it."""
    cv2.multiply(out, smooth_field(1 + field, out.shape[0]), dst=out, dtype=cv2.CV_8U)


def smooth_field(field: npt.NDArray[np.float32], size: int) -> Pixels:
    """Return the field spread to float32 [size, size]."""
    # Cubic at a few pixels per cell and linear from there: a fifth of the time of cubic alone.
    fine = cv2.resize(field, (4 * CELLS, 4 * CELLS), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.resize(fine, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def _turns(angles: Reals) -> Reals:
    """Return rotation matrices [B, 2, 2] of angles in radians."""
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)


def _between(low: float, high: float, drawn: Reals) -> Reals:
    return low + (high - low) * drawn
