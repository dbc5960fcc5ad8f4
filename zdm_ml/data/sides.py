"""Sides: which castings train, choose the epoch, calibrate and test; dealt once, then remembered.

Each class is dealt by itself. A casting that the data version remembers keeps its side. The others
go, in the order of their hashes, first to sides with fewer than two castings of the class, then to
where the shares of params.yaml lack most. Castings that may be one, photographed anew, are a
family, dealt and counted as one. With fewer than eight castings of a class there is no calibration
side of its own: val takes its share and the threshold is cross-fitted there. Castings that arrive
later fill calibration like any other side, and none moves for it: until it has two castings of each
class, its castings serve with val.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from zdm_ml.data.issues import LABEL_CONFLICT, MIXED_LABEL, UNDECODABLE, has_issue
from zdm_ml.data.listing import Entry
from zdm_ml.data.manifest import CLASSES, Label, Row, Split
from zdm_ml.errors import DataError
from zdm_ml.params import SplitParams

LEAST = 2
"""Castings of each class on each side."""

LOCKBOX: Split = "lockbox"

SIDES: tuple[Split, ...] = ("train", "val", "calibration", "test")

BY_KFOLD = (
    "add castings, or cross-validate those there are: `zdm experiment kfold` "
    "(split.protocol: kfold)"
)


@dataclass(frozen=True)
class Castings:
    """Castings with decodable images: of one class, in the order of their hashes, or of both.

    `family` gives the family of each casting of one class; most are alone in theirs.
    """

    of_class: Mapping[Label, Sequence[str]]
    mixed: Mapping[str, Sequence[Row]]
    family: Mapping[str, str]

    @property
    def families(self) -> dict[Label, list[str]]:
        """Each class' families, in the order of their first castings; one may have both."""
        return {
            label: list(dict.fromkeys(self.family[part] for part in parts))
            for label, parts in self.of_class.items()
        }

    @property
    def least(self) -> int:
        """How many families the smaller class has."""
        return min(map(len, self.families.values()))

    @property
    def census(self) -> str:
        """How many castings each class has, in words."""
        return " and ".join(f"{len(found)} {label}" for label, found in self.families.items())


def group_castings(rows: Iterable[Row], seed: int) -> Castings:
    """Sort the castings into classes; one with both labels, or whose bytes have both, is mixed."""
    images: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if not has_issue(row, UNDECODABLE):
            images[row.part].append(row)
    mixed = {part: images[part] for part in sorted(images) if _is_mixed(images[part])}
    pure = sorted(images.keys() - mixed.keys(), key=lambda part: rank(seed, part))
    of_class = {label: [p for p in pure if images[p][0].label == label] for label in CLASSES}
    return Castings(of_class, mixed, {part: images[part][0].family for part in pure})


def deal(
    rows: Iterable[Row], remembered: Mapping[str, Split], params: SplitParams, seed: int
) -> dict[str, Split]:
    """Return the side of each casting (by part id) that has one.

    A mixed casting gets none, but keeps what is remembered for it: `split_rows` leaves it out
    either way. What is in the lockbox stays there and counts for no side. `params.remember` does
    not count here: it is for one split, not for the memory.
    Raises `DataError` when train, val or test lacks two castings of a class.
    """
    rows = list(rows)
    locked = locked_parts(rows, remembered)
    castings = group_castings((row for row in rows if row.part not in locked), seed)
    present = [*castings.mixed, *(part for parts in castings.of_class.values() for part in parts)]
    sides: dict[str, Split] = {part: remembered[part] for part in present if remembered.get(part)}
    recalled = bool(sides)
    calibrated = castings.least >= LEAST * len(SIDES)
    shares = _shares(params, calibrated)
    of_family = _family_sides(sides, castings)
    for families in castings.families.values():
        held: Counter[Split] = Counter(of_family[it] for it in families if it in of_family)
        if not calibrated:
            held["val"] += held.pop("calibration", 0)
        fresh = [it for it in families if it not in of_family]
        of_family |= zip(fresh, places(held, len(fresh), shares, LEAST), strict=True)
    sides = {part: of_family[family] for part, family in castings.family.items()} | sides
    _check_least(sides, castings, recalled=recalled)
    return sides | dict.fromkeys(sorted(locked), LOCKBOX)


def locked_parts(rows: Iterable[Row], remembered: Mapping[str, Split]) -> set[str]:
    """Return the castings in the lockbox, and those without a side that may be one with them."""
    rows = list(rows)
    locked = {row.family for row in rows if remembered.get(row.part) == LOCKBOX}
    sides: tuple[str | None, ...] = (LOCKBOX, "", None)
    return {row.part for row in rows if row.family in locked and remembered.get(row.part) in sides}


def _family_sides(sides: Mapping[str, Split], castings: Castings) -> dict[str, Split]:
    """Return the side that most remembered castings of a family have."""
    votes: dict[str, Counter[Split]] = defaultdict(Counter)
    for part, family in sorted(castings.family.items()):
        if part in sides:
            votes[family][sides[part]] += 1
    return {family: found.most_common(1)[0][0] for family, found in votes.items()}


def places(
    held: Mapping[Split, int], fresh: int, shares: Mapping[Split, float], least: int
) -> list[Split]:
    """Return a side for each of `fresh` castings beside the `held` ones, side after side."""
    counts = Counter(held)
    total = counts.total() + fresh
    for _ in range(fresh):
        short = [side for side in shares if counts[side] < least]
        counts[max(short or shares, key=lambda side: shares[side] * total - counts[side])] += 1
    return [side for side in shares for _ in range(counts[side] - held.get(side, 0))]


def sides_in_use(sides: Mapping[str, Split], castings: Castings) -> dict[str, Split]:
    """Return the sides of unmixed castings; calibration joins val where either is too small."""
    counts = [_on_sides(sides, castings, parts) for parts in castings.of_class.values()]
    apart = all(count[side] >= LEAST for count in counts for side in ("val", "calibration"))
    return {
        part: "val" if sides[part] == "calibration" and not apart else sides[part]
        for parts in castings.of_class.values()
        for part in parts
    }


def remembered_sides(entries: Iterable[Entry]) -> dict[str, Split]:
    """Return the side that a castings list gives each part; two sides raise `DataError`."""
    sides: dict[str, Split] = {}
    example: dict[str, str] = {}
    for entry in sorted(entries, key=lambda entry: entry.path):
        if not entry.side:
            continue
        if sides.setdefault(entry.part, entry.side) != entry.side:
            raise DataError(
                f"the castings list puts part {entry.part} on two sides: "
                f"{example[entry.part]} on {sides[entry.part]}, {entry.path} on {entry.side}",
                hint="give all its images one side; `zdm data checkout` brings the committed "
                "list back",
            )
        example.setdefault(entry.part, entry.path)
    return sides


def rank(seed: int, name: str) -> str:
    """Return what orders castings and images by chance, but always alike."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _is_mixed(images: Sequence[Row]) -> bool:
    conflicting = any(
        has_issue(row, issue) for row in images for issue in (MIXED_LABEL, LABEL_CONFLICT)
    )
    return conflicting or len({row.label for row in images}) > 1


def _shares(params: SplitParams, calibrated: bool) -> dict[Split, float]:
    train = 1 - params.val - params.calibration - params.test
    if not calibrated:
        return {"val": params.val + params.calibration, "test": params.test, "train": train}
    return {
        "val": params.val,
        "calibration": params.calibration,
        "test": params.test,
        "train": train,
    }


def _on_sides(
    sides: Mapping[str, Split], castings: Castings, parts: Iterable[str]
) -> Counter[Split]:
    """Count the families of some castings on each side."""
    return Counter(side for side, _ in {(sides[part], castings.family[part]) for part in parts})


def _check_least(sides: Mapping[str, Split], castings: Castings, *, recalled: bool) -> None:
    used = sides_in_use(sides, castings)
    for label, parts in castings.of_class.items():
        counts = _on_sides(used, castings, parts)
        for side in ("train", "val", "test"):
            if counts[side] < LEAST:
                anew = "; split.remember: false deals all of them anew" if recalled else ""
                raise DataError(
                    f"too few castings: {castings.census}; each of train, val and test needs "
                    f"{LEAST} of each class, {side} has {counts[side]} {label}",
                    hint=BY_KFOLD + anew,
                )
