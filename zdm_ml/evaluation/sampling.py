"""A few images that stand for many: both classes in proportion, castings in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from zdm_ml.data.manifest import CLASSES, Row
from zdm_ml.data.sides import rank


def spread(rows: Sequence[Row], limit: int | None, seed: int) -> list[Row]:
    """Return at most `limit` rows, sorted by path; None keeps all.

    Classes keep their proportion, and each keeps one image at least where `limit` allows. Within a
    class every casting gives one image before any gives a second. The choice depends on seed and
    names alone, not on the order of `rows`.
    """
    if limit is None or len(rows) <= limit:
        return sorted(rows, key=lambda row: row.path)
    defects = sum(row.target for row in rows)
    least = min(1, limit // 2, defects, len(rows) - defects)
    quota = min(max(round(limit * defects / len(rows)), least), limit - least)
    kept: list[Row] = []
    for label, share in zip(CLASSES, (limit - quota, quota), strict=True):
        kept += _in_turn([row for row in rows if row.label == label], seed)[:share]
    return sorted(kept, key=lambda row: row.path)


def _in_turn(rows: Sequence[Row], seed: int) -> list[Row]:
    """Return one image of every casting, then a second of each that has one, and so on."""
    taken: Counter[str] = Counter()
    turns: list[tuple[int, str, Row]] = []
    for row in sorted(rows, key=lambda row: rank(seed, row.path)):
        turns.append((taken[row.part], rank(seed, row.part), row))
        taken[row.part] += 1
    return [row for _, _, row in sorted(turns, key=lambda turn: turn[:2])]
