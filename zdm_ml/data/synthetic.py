"""Synthetic castings in Kaggle's layout: parts that are known, defects that are masked."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from zdm_ml.data.images import Grey
from zdm_ml.data.layout import Progress
from zdm_ml.data.rendering import Photograph, make_part, photograph
from zdm_ml.errors import DataError
from zdm_ml.files import write_text

JPEG_QUALITY = 80
PARTS_FILE = "parts.csv"
MASKS_FOLDER = "masks"
_KNOWN_DEFECTS = 1
"""Tells the seeds of `known_defects` from those of data sets."""


@dataclass(frozen=True)
class _Order:
    """One part to make; `index` seeds it, `first` numbers its first view."""

    index: int
    first: int
    split: str
    defective: bool

    @property
    def folder(self) -> str:
        return f"{self.split}/{'def' if self.defective else 'ok'}_front"


def make_synthetic(
    destination: Path,
    *,
    parts: int,
    views: int,
    seed: int,
    size: int = 300,
    defect_share: float = 0.5,
    test_share: float = 0.15,
    progress: Progress | None = None,
) -> None:
    """Write `parts` x `views` grey JPEGs, the same bytes for the same arguments.

    Beside {train,test}/{def_front,ok_front}/ lie `parts.csv` (path, part, kinds) and
    `masks/<name>.png`, one per defective image, 255 where the defect is. All views of a part are
    in one split; each split has both classes. `destination` must be empty or absent.
    """
    if destination.exists() and any(destination.iterdir()):
        raise DataError(f"{destination} is not empty", hint="name another folder")
    orders = list(_orders(parts, views, seed, defect_share, test_share))
    make = partial(_make, destination, views, seed, size)
    records = io.StringIO()
    writer = csv.writer(records, lineterminator="\n")
    writer.writerow(("path", "part", "kinds"))
    try:
        for folder in {order.folder for order in orders} | {MASKS_FOLDER}:
            (destination / folder).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done, rows in enumerate(pool.map(make, orders), start=1):
                writer.writerows(rows)
                if progress:
                    progress(done * views, parts * views)
        write_text(destination / PARTS_FILE, records.getvalue())
    except OSError as error:
        raise DataError(
            f"synthetic castings cannot be written to {destination}: {error.strerror}",
            hint="free some space or correct the owner of the folder",
        ) from error


def known_defects(count: int, seed: int, size: int = 300) -> list[Photograph]:
    """Return a photograph each of `count` defective parts, as a JPEG gives it back, and its mask.

    None of the parts is in a data set of `make_synthetic`.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(partial(_known_defect, seed, size), range(count)))


def _known_defect(seed: int, size: int, index: int) -> Photograph:
    rng = np.random.default_rng([seed, index, _KNOWN_DEFECTS])
    photo = photograph(make_part(rng, size, defective=True), rng)
    while not photo.mask.any():  # the defects may lie outside the picture
        photo = photograph(make_part(rng, size, defective=True), rng)
    _, content = cv2.imencode(".jpeg", photo.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    stored = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
    return Photograph(np.asarray(stored, dtype=np.uint8), photo.mask)


def _orders(
    parts: int, views: int, seed: int, defect_share: float, test_share: float
) -> Iterator[_Order]:
    defects = round(parts * defect_share)
    if min(defects, parts - defects) < 2 or views < 1:
        raise DataError(
            f"{parts} parts with {defects} defective ones are too few",
            hint="ask for at least two parts of each class and one view",
        )
    order = np.random.default_rng(seed).permutation(parts)
    for rank, index in enumerate(sorted(range(parts), key=lambda index: int(order[index]))):
        defective = rank < defects
        position, count = (rank, defects) if defective else (rank - defects, parts - defects)
        in_test = position < min(max(1, round(count * test_share)), count - 1)
        yield _Order(index, index * views, "test" if in_test else "train", defective)


def _make(
    destination: Path, views: int, seed: int, size: int, order: _Order
) -> list[tuple[str, str, str]]:
    rng = np.random.default_rng([seed, order.index])
    part = make_part(rng, size, defective=order.defective)
    kind = "def" if order.defective else "ok"
    rows = []
    for number in range(order.first, order.first + views):
        photo = photograph(part, rng)
        name = f"cast_{kind}_{number}"
        path = f"{order.folder}/{name}.jpeg"
        _write(destination / path, photo.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if order.defective:
            _write(destination / MASKS_FOLDER / f"{name}.png", photo.mask, [])
        rows.append((path, f"part_{order.index:05d}", ";".join(part.kinds)))
    return rows


def _write(path: Path, image: Grey, options: list[int]) -> None:
    _, content = cv2.imencode(path.suffix, image, options)
    path.write_bytes(content.tobytes())
