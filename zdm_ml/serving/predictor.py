"""Image bytes or files to verdicts: the same road for the server and for `zdm predict`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zdm_ml.data.images import ImageRefused, decode_grey
from zdm_ml.errors import PackageError
from zdm_ml.evaluation.verdicts import Ruling, Verdict
from zdm_ml.models.net import LoadedNet
from zdm_ml.serving.limits import check_type

GROUP_IMAGES = 16
GROUP_PIXELS = 8_000_000
"""Images are scored in groups that stay below these, so that a batch's memory is bounded."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """`score` is P(defect); the verdict `review` asks for a person."""

    verdict: Verdict
    score: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """An image without a verdict; `reason` is one of `limits.STATUS` or `unreadable`."""

    reason: str
    detail: str


class Predictor:
    """A net with its ruling; `judge` may run in several threads at a time."""

    def __init__(self, net: LoadedNet, ruling: Ruling, *, max_pixels: int) -> None:
        self.net = net
        self.ruling = ruling
        self._max_pixels = max_pixels

    def judge(self, sources: Iterable[bytes | Path]) -> Iterator[Judgement | Refusal]:
        """Yield one result per source, in order; a bad image does not stop the others."""
        group: list[NDArray[np.uint8] | Refusal] = []
        pixels = 0
        for source in sources:
            image = self._decode(source)
            group.append(image)
            pixels += 0 if isinstance(image, Refusal) else image.size
            if len(group) >= GROUP_IMAGES or pixels >= GROUP_PIXELS:
                yield from self._score(group)
                group, pixels = [], 0
        yield from self._score(group)

    def _decode(self, source: bytes | Path) -> NDArray[np.uint8] | Refusal:
        try:
            return decode_grey(source, max_pixels=self._max_pixels)
        except ImageRefused as error:
            return Refusal(_reason(source, error.reason), error.problem)
        except OSError as error:
            return Refusal("unreadable", f"{source!s:.200}: {error.strerror or error}")

    def _score(self, group: list[NDArray[np.uint8] | Refusal]) -> Iterator[Judgement | Refusal]:
        images = [image for image in group if not isinstance(image, Refusal)]
        scores = iter(self.net.scores(images) if images else ())
        for image in group:
            yield image if isinstance(image, Refusal) else self._judgement(float(next(scores)))

    def _judgement(self, score: float) -> Judgement:
        # NaN compares as below every threshold: without this check it would pass as ok.
        if not math.isfinite(score):
            raise PackageError(f"the model scored {score}", hint="retrain it; do not promote it")
        return Judgement(self.ruling.verdicts.of(score), score)


def _reason(source: bytes | Path, reason: str) -> str:
    """Return `undecodable` for a JPEG or PNG so short that the decoder does not know its type."""
    known_type = isinstance(source, bytes) and not check_type(source)
    return "undecodable" if reason == "not_an_image" and known_type else reason
