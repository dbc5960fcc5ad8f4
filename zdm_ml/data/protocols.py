"""The three ways to split: by casting, by casting in folds, and as the dataset was shipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zdm_ml.data.manifest import CLASSES, Row, Split
from zdm_ml.data.sides import LEAST, Castings, deal, places, rank, sides_in_use
from zdm_ml.errors import DataError
from zdm_ml.params import SplitParams


@dataclass(frozen=True)
class Assignment:
    """The side of each image (by path) before limits, and what was left out on the way.

    `folds` gives the fold of each part under kfold; `remembered` counts parts that kept a side.
    """

    sides: Mapping[str, Split]
    folds: Mapping[str, int] = field(default_factory=dict)
    remembered: int = 0
    seen: int = 0
    duplicates_of_test: int = 0


def grouped(
    rows: Sequence[Row],
    castings: Castings,
    params: SplitParams,
    seed: int,
    remembered: Mapping[str, Split],
) -> Assignment:
    """Put all images of a casting on its side.

    A shipped test image of a train casting is held out of training, so that the shipped split's
    leaky figure can be shown beside the honest one; unless the casting has no other image.
    """
    sides = sides_in_use(deal(rows, remembered, params, seed), castings)
    elsewhere = {row.part for row in rows if row.shipped_split != "test"}
    seen = {
        row.path
        for row in rows
        if row.shipped_split == "test" and sides[row.part] == "train" and row.part in elsewhere
    }
    return Assignment(
        sides={row.path: sides[row.part] for row in rows if row.path not in seen},
        remembered=sum(1 for part in sides if remembered.get(part)),
        seen=len(seen),
    )


def kfold(rows: Sequence[Row], castings: Castings, params: SplitParams, seed: int) -> Assignment:
    """Deal castings to folds, class by class; one fold tests, the others train, val and calibrate.

    Castings that may be one share a fold. Shares of val and calibration are those among castings
    that do not test.
    """
    families = castings.families
    dealt = dict.fromkeys(family for label in CLASSES for family in families[label])
    folds = {family: position % params.folds for position, family in enumerate(dealt)}
    learning = {
        label: sorted(
            (family for family in families[label] if folds[family] != params.fold),
            key=lambda family: rank(seed, f"{params.fold}:{family}"),
        )
        for label in CLASSES
    }
    _check_folds(castings, min(map(len, learning.values())), params)
    shares = _learning_shares(params, min(map(len, learning.values())))
    sides: dict[str, Split] = {it: "test" for it in folds if folds[it] == params.fold}
    for found in learning.values():
        least = LEAST if len(found) >= LEAST * len(shares) else 1
        held = Counter(sides[it] for it in found if it in sides)
        fresh = [it for it in found if it not in sides]
        sides |= zip(fresh, places(held, len(fresh), shares, least), strict=True)
    return Assignment(
        {row.path: sides[row.family] for row in rows},
        folds={part: folds[family] for part, family in castings.family.items()},
    )


def shipped(rows: Sequence[Row], params: SplitParams, seed: int) -> Assignment:
    """Keep the shipped test set; deal the other images, whatever castings they show.

    An image with the same bytes as a test image is left out; identical ones stay together.
    """
    test = [row for row in rows if row.shipped_split == "test"]
    held = {row.sha256 for row in test}
    learning = [row for row in rows if row.shipped_split != "test" and row.sha256 not in held]
    shares: dict[Split, float] = {
        "val": params.val,
        "calibration": params.calibration,
        "train": 1 - params.val - params.calibration,
    }
    sides: dict[str, Split] = {}
    for label in CLASSES:
        digests = {row.sha256 for row in learning if row.label == label}
        ordered = sorted(digests, key=lambda digest: rank(seed, digest))
        sides |= zip(ordered, places({}, len(ordered), shares, 1), strict=True)
    on_test: dict[str, Split] = dict.fromkeys((row.path for row in test), "test")
    return Assignment(
        on_test | {row.path: sides[row.sha256] for row in learning},
        duplicates_of_test=len(rows) - len(test) - len(learning),
    )


def _learning_shares(params: SplitParams, castings: int) -> dict[Split, float]:
    rest = 1 - params.test
    val, calibration = params.val / rest, params.calibration / rest
    if castings < 3 * LEAST:
        return {"val": val + calibration, "train": 1 - val - calibration}
    return {"val": val, "calibration": calibration, "train": 1 - val - calibration}


def _check_folds(castings: Castings, learning: int, params: SplitParams) -> None:
    least = castings.least
    if least < params.folds or learning < 2:
        raise DataError(
            f"too few castings for {params.folds} folds: {castings.census}",
            hint=f"set split.folds to {least}"
            if least > 2
            else "add castings: at least 3 of each class",
        )
