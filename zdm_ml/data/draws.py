"""What chance decides for each image of an epoch, whoever asks and in whatever order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]

CELLS = 4
"""A field, of light or of what shows of a partner, has this many points across and down."""

_BLOCK = 1024
_UNIFORM = 16


@dataclass(frozen=True)
class Draws:
    """What chance decides for B images: `uniform` [B, 16] in [0, 1), `field` [B, 4, 4] normal.

    `partner` and `mask`, alike, are for the image that each may be mixed with.
    """

    uniform: Reals
    field: npt.NDArray[np.float32]
    partner: Reals
    mask: npt.NDArray[np.float32]


def draws(seed: int, epoch: int, places: Places) -> Draws:
    """Return the draws of places in an epoch; each depends on (seed, epoch, place) alone.

    So a training that resumes at an epoch sees the same pictures, whatever the batch size, the
    number of threads or the number of processes that share a batch.
    """
    found = [(_block(seed, epoch, int(at) // _BLOCK), int(at) % _BLOCK) for at in places]
    return Draws(
        np.stack([block.uniform[row] for block, row in found]),
        np.stack([block.field[row] for block, row in found]),
        np.stack([block.partner[row] for block, row in found]),
        np.stack([block.mask[row] for block, row in found]),
    )


@lru_cache(maxsize=4)
def _block(seed: int, epoch: int, number: int) -> Draws:
    rng = np.random.default_rng((seed, epoch, number + 1))
    field, uniform = _fields(rng), rng.random((_BLOCK, _UNIFORM))
    return Draws(uniform, field, mask=_fields(rng), partner=rng.random((_BLOCK, _UNIFORM)))


def _fields(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return rng.standard_normal((_BLOCK, CELLS, CELLS), dtype=np.float32)
