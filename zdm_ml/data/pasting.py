"""Drawn defects to paste on good castings, so that a net learns the defect and not the casting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from zdm_ml.data.defects import BLOW_HOLES, PINHOLES, draw_pit
from zdm_ml.data.geometry import GROOVE, RIM, make_grid

KINDS = (
    replace(PINHOLES, reach=(GROOVE - 10, RIM + 2)),
    replace(BLOW_HOLES, reach=(GROOVE + 1, RIM + 1)),
)
"""Pits alone, those that notch the edges of groove and rim among them.

Drawn scratches and sponge taught nets that the marks of a good casting are defects
(docs/experiments.md, entry 12); burrs follow the rim, whose place in a photograph is unknown here.
"""

PATCHES = 384
_SEED = 7
_VISIBLE = 0.01


@dataclass(frozen=True)
class Patch:
    """A defect in a window of the image: `cover` in [0, 1] and grey `level`, float32 [h, w]."""

    rows: slice
    columns: slice
    cover: npt.NDArray[np.float32]
    level: npt.NDArray[np.float32]


def paste(image: npt.NDArray[np.uint8], patch: Patch) -> None:
    """Paint a patch on an image, uint8 [S, S], in place."""
    window = image[patch.rows, patch.columns]
    window[...] = window + patch.cover * (patch.level - window)


@lru_cache(maxsize=2)
def draw_patches(size: int, count: int = PATCHES) -> tuple[Patch, ...]:
    """Return `count` pits on the flange of a centred casting in images of `size`, kinds in turn.

    The same for every training: which image gets which is what its seed decides.
    """
    rng, grid = np.random.default_rng(_SEED), make_grid(size)
    patches: list[Patch] = []
    while len(patches) < count:
        layer = draw_pit(KINDS[len(patches) % len(KINDS)], rng, grid)
        found = np.argwhere(layer.cover > _VISIBLE)
        if len(found) == 0:
            continue
        (top, left), (bottom, right) = found.min(0), found.max(0) + 1
        rows, columns = slice(int(top), int(bottom)), slice(int(left), int(right))
        window = (rows, columns)
        patches.append(Patch(*window, layer.cover[window].copy(), layer.level[window].copy()))
    return tuple(patches)
