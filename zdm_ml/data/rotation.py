"""Rotation: fresh test castings for those that have chosen a model often enough."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from zdm_ml.data.manifest import CLASSES, Label, Row, Split
from zdm_ml.data.redealing import newest_opened
from zdm_ml.data.sides import LOCKBOX, group_castings, remembered_sides
from zdm_ml.data.versions import DataVersion
from zdm_ml.errors import DataError
from zdm_ml.params import Params
from zdm_ml.settings import Settings

MADE_BY = "rotate-test"


@dataclass(frozen=True)
class Rotation:
    """Castings of each class that would test from now on, and those that would train instead.

    `missing` is how many more of each class are needed; nothing is rotated before they are there.
    """

    fresh: Mapping[Label, Sequence[str]]
    retired: Mapping[Label, Sequence[str]]
    missing: Mapping[Label, int]

    @property
    def sides(self) -> dict[str, Split]:
        """Return the sides that change, by part."""
        sides: dict[str, Split] = {}
        for label in CLASSES:
            sides |= dict.fromkeys(self.retired[label], "train")
            sides |= dict.fromkeys(self.fresh[label], "test")
        return sides


def propose(
    rows: Sequence[Row], sides: Mapping[str, Split], trained_on: Collection[str], seed: int
) -> Rotation:
    """Return as many fresh castings of each class as test now, drawn by `seed`.

    Fresh is what neither tests now, nor lies in the lockbox, nor is among the parts `trained_on`,
    nor may be one with any of those.
    """
    castings = group_castings(rows, seed)
    used = {part for part, side in sides.items() if side in ("test", LOCKBOX)} | set(trained_on)
    barred = {row.family for row in rows if row.part in used}
    testing = {row.family for row in rows if sides.get(row.part) == "test"}
    fresh: dict[Label, list[str]] = {}
    retired: dict[Label, list[str]] = {}
    missing: dict[Label, int] = {}
    for label, families in castings.families.items():
        old = [family for family in families if family in testing]
        new = [family for family in families if family not in barred][: len(old)]
        parts = castings.of_class[label]
        fresh[label] = [part for part in parts if castings.family[part] in new]
        retired[label] = [part for part in parts if sides.get(part) == "test"]
        missing[label] = len(old) - len(new)
    return Rotation(fresh, retired, missing)


def rotate(
    settings: Settings,
    params: Params,
    trained_on: Collection[str],
    *,
    apply: bool,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Rotation, DataVersion | None]:
    """Propose fresh test castings and, with `apply`, make the data version in which they test.

    `trained_on` are the castings that the champion learned from. Raises `DataError` where too few
    castings are fresh to apply it, or where params.yaml deals them anew.
    """
    if params.split.protocol != "grouped" or not params.split.remember:
        raise DataError(
            "this split takes no notice of the sides that a data version remembers",
            hint="rotate under split.protocol: grouped and split.remember: true",
        )
    with newest_opened(settings, params, progress) as opened:
        sides = remembered_sides(opened.listed)
        rotation = propose(opened.rows, sides, trained_on, params.seed)
        if not apply:
            return rotation, None
        lacking = [f"{count} {label}" for label, count in rotation.missing.items() if count]
        if lacking:
            raise DataError(
                f"too few fresh castings: {' and '.join(lacking)} are missing that the champion "
                "has not trained on",
                hint="`zdm data import` or the intake brings new ones; rotate before a retraining "
                "learns from them",
            )
        return rotation, opened.publish(rotation.sides, MADE_BY)
