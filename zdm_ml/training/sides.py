"""One side of a split as training sees it: which images of a shared array, and what they show."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Targets = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """N images: rows `places` [N] of `images`, uint8 [M, S, S], which sides share.

    `targets` [N] are 1 for a defect, `castings` [N] number the castings.
    """

    images: Images
    places: Indices
    targets: Targets
    castings: Indices

    def __len__(self) -> int:
        return len(self.places)

    @property
    def size(self) -> int:
        """The images' side in pixels."""
        return int(self.images.shape[-1])

    def part(self, chosen: Indices) -> Side:
        """Return the chosen images as a side."""
        return replace(
            self,
            places=self.places[chosen],
            targets=self.targets[chosen],
            castings=self.castings[chosen],
        )

    def pictures(self, chosen: Indices | slice) -> Images:
        """Return the chosen of the side's images, uint8 [B, S, S]."""
        return np.asarray(self.images[self.places[chosen]])


def make_side(images: Images, targets: Targets, castings: Indices | None = None) -> Side:
    """Return a side of all `images`; without `castings` each image is a casting of its own."""
    places = np.arange(len(images))
    return Side(images, places, targets, places if castings is None else castings)
