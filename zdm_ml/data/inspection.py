"""Inspection of a castings folder: its images, and which casting each of them shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zdm_ml.data.fingerprints import Spectra, mean_power, similarities, whiten
from zdm_ml.data.issues import with_issues
from zdm_ml.data.layout import Progress
from zdm_ml.data.looks import Looks
from zdm_ml.data.manifest import Row
from zdm_ml.data.opening import Opened, open_all
from zdm_ml.data.part_ids import PartId, name_parts
from zdm_ml.data.parts import Recovery, Threshold, recover
from zdm_ml.params import AuditParams

COMPARED = 8
"""Images of each of two parts that are compared to show a contradiction."""


@dataclass(frozen=True)
class Contradiction:
    """Two images of different parts, and how alike their castings look."""

    path: str
    part: str
    other_path: str
    other_part: str
    similarity: float


@dataclass(frozen=True)
class Inspection:
    """What was seen in a folder.

    `rows` are sorted by path and have no sides. `contradictions` are known parts that look like one
    casting; `suspects` are parts that may be one casting although they are less alike than
    `threshold`: the rows of such parts are kin. `features` holds `probes.FEATURES` by path.
    """

    rows: list[Row]
    contradictions: list[Contradiction]
    suspects: list[Contradiction]
    threshold: Threshold | None
    features: dict[str, npt.NDArray[np.float32]]
    looks: Looks


@dataclass(frozen=True)
class _Sight:
    """The images that were recognised in one way: by their rings, or by their outline."""

    rows: list[Row]
    white: Spectra
    found: Recovery


def inspect_castings(
    folder: Path,
    files: Mapping[str, str],
    params: AuditParams,
    *,
    known: Mapping[str, str] = {},
    remembered: Mapping[str, str] = {},
    progress: Progress | None = None,
) -> Inspection:
    """Inspect the images `files` (manifest path -> split/class/name) under `folder`.

    `known` gives the part of a manifest path, `remembered` that of a sha256. A file that does not
    decode gets a row with that issue; one that cannot be read raises `DataError`.
    """
    looks, opened = open_all(folder, files, params.max_pixels, progress)
    sights = [sight for way in ("ring", "outline") if (sight := _recognise(opened, way))]
    named = _named(sights, known, remembered)
    blind = [_unseen(each.row, known) for each in opened if not each.seen]
    part_of = {row.path: row.part for row in named}
    suspects = [it for sight in sights for it in _suspects(sight, part_of)]
    kin = _kin(suspects, known)
    named = [replace(row, kin=kin.get(row.part, "")) for row in named]
    largest = max(sights, key=lambda sight: len(sight.rows), default=None)
    return Inspection(
        rows=with_issues(named + blind),
        contradictions=[it for sight in sights for it in _contradictions(sight, known)],
        suspects=suspects,
        threshold=largest.found.threshold if largest else None,
        features={each.row.path: each.features for each in opened if each.features is not None},
        looks=looks,
    )


def _recognise(opened: Sequence[Opened], way: str) -> _Sight | None:
    chosen = [each for each in opened if each.seen and each.seen.way == way]
    if not chosen:
        return None
    raw = np.stack([each.seen.spectrum for each in chosen if each.seen])
    white = whiten(raw, mean_power(raw))
    found = recover(white)
    sizes = np.bincount(found.group, minlength=len(chosen))
    rows = []
    for place, each in enumerate(chosen):
        nearest = int(found.nearest[place])
        rows.append(
            replace(
                each.row,
                nearest=chosen[nearest].row.path if nearest >= 0 else "",
                similarity=round(float(found.similarity[place]), 4),
                confidence=round(float(found.confidence[place]), 3),
                identity=way if sizes[found.group[place]] > 1 else "alone",
            )
        )
    return _Sight(rows, white, found)


def _named(
    sights: Sequence[_Sight], known: Mapping[str, str], remembered: Mapping[str, str]
) -> list[Row]:
    """Return the rows of all sights with their parts; no group spans two sights."""
    rows = [row for sight in sights for row in sight.rows]
    firsts = np.cumsum([0, *(len(sight.rows) for sight in sights)])
    groups = [
        int(first + group)
        for first, sight in zip(firsts, sights, strict=False)
        for group in sight.found.group
    ]
    paths, digests = [row.path for row in rows], [row.sha256 for row in rows]
    ids = name_parts(paths, digests, groups, known=known, remembered=remembered)
    return [_with_part(row, each) for row, each in zip(rows, ids, strict=True)]


def _with_part(row: Row, found: PartId) -> Row:
    identity = row.identity if found.origin == "recognised" else found.origin
    confidence = 1.0 if found.origin == "known" else row.confidence
    return replace(row, part=found.part, identity=identity, confidence=confidence)


def _kin(suspects: Sequence[Contradiction], known: Mapping[str, str]) -> dict[str, str]:
    """Return, for each part that may be one with another, the name of all of them.

    Two parts that the source names are different, however alike they look.
    """
    named = set(known.values())
    kin: dict[str, set[str]] = {}
    for each in suspects:
        if not {each.part, each.other_part} <= named:
            both = kin.get(each.part, {each.part}) | kin.get(each.other_part, {each.other_part})
            kin |= dict.fromkeys(both, both)
    return {part: min(found) for part, found in kin.items()}


def _unseen(row: Row, known: Mapping[str, str]) -> Row:
    if row.path not in known:
        return row
    return replace(row, part=known[row.path], identity="known", confidence=1.0)


def _contradictions(sight: _Sight, known: Mapping[str, str]) -> list[Contradiction]:
    """Return the most similar images of each two known parts that were recognised as one."""
    members: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, row in enumerate(sight.rows):
        if row.path in known:
            members[int(sight.found.group[place])][known[row.path]].append(place)
    return [
        _closest(sight, (first, parts[first]), (second, parts[second]))
        for parts in members.values()
        for first, second in combinations(sorted(parts), 2)
    ]


def _closest(
    sight: _Sight, first: tuple[str, list[int]], second: tuple[str, list[int]]
) -> Contradiction:
    left, right = first[1][:COMPARED], second[1][:COMPARED]
    alike = similarities(sight.white[left], sight.white[right])
    a, b = np.unravel_index(int(alike.argmax()), alike.shape)
    return Contradiction(
        sight.rows[left[a]].path,
        first[0],
        sight.rows[right[b]].path,
        second[0],
        round(float(alike[a, b]), 4),
    )


def _suspects(sight: _Sight, part_of: Mapping[str, str]) -> list[Contradiction]:
    pairs = [
        (sight.rows[each.left].path, sight.rows[each.right].path, round(each.similarity, 4))
        for each in sight.found.suspects
    ]
    return [
        Contradiction(left, part_of[left], right, part_of[right], similarity)
        for left, right, similarity in pairs
        if part_of[left] != part_of[right]
    ]
