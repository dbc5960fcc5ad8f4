"""Leaks: castings, or identical files, on two sides of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from zdm_ml.data.manifest import Row
from zdm_ml.errors import DataError


def leaks(rows: Iterable[Row]) -> list[str]:
    """Return the parts with images on more than one side, sorted."""
    return sorted(_on_two_sides(rows, lambda row: row.part))


def scattered_kin(rows: Iterable[Row]) -> list[str]:
    """Return the families (castings that may be one) on more than one side, sorted."""
    return sorted(_on_two_sides(rows, lambda row: row.family))


def check_leaks(rows: Sequence[Row]) -> None:
    """Raise `DataError` naming the first part, or the first identical files, on two sides."""
    for part, images in sorted(_on_two_sides(rows, lambda row: row.part).items()):
        raise DataError(
            f"casting {part} is on two sides of the split: {_named(images)}",
            hint="give all images of the casting one side in the castings list; "
            "`zdm data checkout` brings the committed list back",
        )
    for images in _on_two_sides(rows, lambda row: row.sha256).values():
        raise DataError(
            f"identical images of different castings ({_parts(images)}) are on two sides of the "
            f"split: {_named(images)}",
            hint="correct parts.csv or audit.part_pattern, so that the same image shows one "
            "casting, and import again",
        )


def seen_rows(rows: Sequence[Row]) -> list[Row]:
    """Return shipped test images that show castings of the train side but were not trained on.

    For protocol grouped: what a model scores on them is the leaky figure that the shipped split
    would have given. Images whose bytes are in train are not among them.
    """
    train = [row for row in rows if row.split == "train"]
    parts, digests = {row.part for row in train}, {row.sha256 for row in train}
    return [
        row
        for row in rows
        if not row.split
        and row.shipped_split == "test"
        and row.part in parts
        and row.sha256 not in digests
    ]


def _on_two_sides(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    images: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.split:
            images[key(row)].append(row)
    return {name: of for name, of in images.items() if len({row.split for row in of}) > 1}


def _named(images: Sequence[Row]) -> str:
    """Name one image of each side."""
    first = {row.split: row.path for row in sorted(images, key=lambda row: row.path, reverse=True)}
    return ", ".join(f"{path} on {side}" for side, path in sorted(first.items()))


def _parts(images: Sequence[Row]) -> str:
    return ", ".join(sorted({row.part for row in images}))
