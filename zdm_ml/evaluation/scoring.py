"""Scores of a manifest's images: decode, preprocess, classify, in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zdm_ml.data.images import decode_grey
from zdm_ml.data.manifest import Row
from zdm_ml.errors import DataError
from zdm_ml.models.net import LoadedNet

_DECODERS = 4


def score_rows(
    loaded: LoadedNet,
    rows: Sequence[Row],
    folder: Path,
    *,
    batch_size: int,
    max_pixels: int,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> npt.NDArray[np.float64]:
    """Return P(defect), float64 [N], of the rows' images under `folder`, in the rows' order.

    Two batches are in memory at most: one is decoded while the net looks at the other.
    `on_step(done, total)` counts images. An image that is missing or undecodable raises
    `DataError` with its path.
    """
    scores = np.empty(len(rows), dtype=np.float64)

    with ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode") as pool:

        def begin(start: int) -> list[Future[npt.NDArray[np.uint8]]]:
            return [
                pool.submit(decode_row, folder, row, max_pixels=max_pixels)
                for row in rows[start : start + batch_size]
            ]

        waiting = begin(0)
        for start in range(0, len(rows), batch_size):
            images = [future.result() for future in waiting]
            waiting = begin(start + batch_size)
            scores[start : start + len(images)] = loaded.scores(images, batch_size)
            on_step(start + len(images), len(rows))
    return scores


def decode_row(folder: Path, row: Row, *, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Return a row's image, grey uint8 [H, W]; a missing or undecodable one is named."""
    path = folder / row.path
    try:
        return decode_grey(path, max_pixels=max_pixels)
    except OSError as error:
        raise DataError(
            f"image {path} cannot be read: {error.strerror}",
            hint="restore the images with `dvc checkout data/castings.dvc`",
        ) from error
    except DataError as error:
        raise DataError(f"image {path}: {error.problem}", hint=error.hint) from error
