"""The id of each image's casting: what is known wins, what is recognised fills the gaps."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Origin = Literal["known", "remembered", "recognised"]

DIGITS = 10


@dataclass(frozen=True)
class PartId:
    """An image's part and where its id comes from."""

    part: str
    origin: Origin


def name_parts(
    paths: Sequence[str],
    digests: Sequence[str],
    groups: Sequence[int],
    *,
    known: Mapping[str, str],
    remembered: Mapping[str, str],
) -> list[PartId]:
    """Return the part of each image.

    `known` gives the part of a path (parts.csv, serial number), `remembered` that of a sha256 (an
    earlier data version). The other images of a recognised group join the part that most of its
    named images have, known ones first; a group without a name gets one made of its smallest
    digest, so that the same images always get the same id.
    """
    named: list[PartId | None] = [
        _named(path, digest, known, remembered) for path, digest in zip(paths, digests, strict=True)
    ]
    members: dict[int, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    taken = {each.part for each in named if each}
    result: list[PartId] = [each or PartId("", "recognised") for each in named]
    for places in members.values():
        unnamed = [place for place in places if named[place] is None]
        if not unnamed:
            continue
        heirs = [each for place in places if (each := named[place])]
        part = _most_common(heirs) if heirs else _fresh([digests[i] for i in places], taken)
        taken.add(part)
        for place in unnamed:
            result[place] = PartId(part, "recognised")
    return result


def _named(
    path: str, digest: str, known: Mapping[str, str], remembered: Mapping[str, str]
) -> PartId | None:
    if path in known:
        return PartId(known[path], "known")
    if digest in remembered:
        return PartId(remembered[digest], "remembered")
    return None


def _most_common(heirs: Sequence[PartId]) -> str:
    """Return the id that most images have, known ones before remembered ones, then by name."""
    certain = [each for each in heirs if each.origin == "known"] or heirs
    counts = Counter(each.part for each in certain)
    return min(counts, key=lambda part: (-counts[part], part))


def _fresh(digests: Sequence[str], taken: set[str]) -> str:
    first = min(digests)
    if len(first) < DIGITS:
        first = hashlib.sha256(first.encode()).hexdigest()
    return next(
        name
        for digits in range(DIGITS, len(first) + 1)
        if (name := f"part-{first[:digits]}") not in taken
    )
