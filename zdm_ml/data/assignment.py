"""Assignment: which casting each image shows, and which side of the split that casting keeps."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from zdm_ml.data.inspection import inspect_castings
from zdm_ml.data.listing import Entry
from zdm_ml.data.manifest import Row, Split
from zdm_ml.data.splits import deal, remembered_sides
from zdm_ml.errors import DataError
from zdm_ml.params import Params

logger = logging.getLogger(__name__)

SHOWN = 10


def recognise(
    folder: Path,
    paths: Iterable[str],
    known: Mapping[str, str],
    before: Sequence[Entry],
    params: Params,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Return a row per image `split/class/name` of `folder`, each with its casting.

    A part that the source names wins, then the one that `before` remembers for the same bytes,
    then recognition. Pictures that deny a named part are told.
    """
    for path, part in known.items():
        if not part.isprintable():
            raise DataError(f"casting {part!r} of {path} has control characters in its name")
    inspection = inspect_castings(
        folder,
        {path: path for path in paths},
        params.audit,
        known=known,
        remembered={entry.sha256: entry.part for entry in before},
        progress=progress,
    )
    for found in inspection.contradictions[:SHOWN]:
        logger.warning(
            "%s of casting %s looks like %s of casting %s (similarity %.3f)",
            *(found.path, found.part, found.other_path, found.other_part, found.similarity),
        )
    return inspection.rows


def make_entries(
    rows: Sequence[Row],
    folder: Path,
    known: Mapping[str, str],
    kinds: Mapping[str, str],
    before: Sequence[Entry],
    params: Params,
) -> list[Entry]:
    """Return the castings list of `rows`: parts as recognised, sides dealt or remembered.

    Where the source says nothing of kinds of defect, they are those that `before` has for the same
    bytes.
    """
    sides = _sides(rows, before, params)
    kinds_of = {entry.sha256: entry.kinds for entry in before if entry.kinds}
    named = {(entry.sha256, entry.part) for entry in before if entry.known}
    return [
        Entry(
            path=row.path,
            sha256=row.sha256,
            size=(folder / row.path).stat().st_size,
            part=row.part,
            known=row.path in known or (row.sha256, row.part) in named,
            side=sides.get(row.part, ""),
            kinds=kinds.get(row.path, kinds_of.get(row.sha256, "")),
        )
        for row in rows
    ]


def _sides(rows: Sequence[Row], before: Sequence[Entry], params: Params) -> Mapping[str, Split]:
    remembered = {**_renamed(rows, before), **remembered_sides(before)}
    try:
        return deal(rows, remembered, params.split, params.seed)
    except DataError as error:
        logger.warning("castings are not dealt to sides of the split: %s", error.problem)
        return remembered


def _renamed(rows: Iterable[Row], before: Iterable[Entry]) -> dict[str, Split]:
    """Return the sides of castings whose images had another part id before."""
    side_of = {entry.sha256: entry.side for entry in before if entry.side}
    votes: dict[str, Counter[Split]] = {}
    for row in rows:
        if row.sha256 in side_of:
            votes.setdefault(row.part, Counter())[side_of[row.sha256]] += 1
    return {part: found.most_common(1)[0][0] for part, found in votes.items()}
