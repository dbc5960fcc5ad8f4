"""The split: which images train, choose the epoch, set the threshold and test."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from zdm_ml.data.issues import UNDECODABLE, has_issue
from zdm_ml.data.leaks import check_leaks, leaks, scattered_kin, seen_rows
from zdm_ml.data.manifest import CLASSES, Row, Split
from zdm_ml.data.protocols import Assignment, grouped, kfold, shipped
from zdm_ml.data.sides import (
    LEAST,
    LOCKBOX,
    SIDES,
    Castings,
    deal,
    group_castings,
    locked_parts,
    rank,
    remembered_sides,
)
from zdm_ml.errors import DataError
from zdm_ml.params import SplitParams

__all__ = ["deal", "leaks", "remembered_sides", "seen_rows", "split_rows"]

OWN_CALIBRATION = "own castings"
CROSS_FITTED = "cross-fitted on val"
LEAST_CASTINGS = {"grouped": LEAST, "kfold": 1, "shipped": 1}


def split_rows(
    rows: Iterable[Row], params: SplitParams, seed: int, remembered: Mapping[str, Split]
) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows with their sides, sorted by path, and the report for `reports/split.json`.

    `remembered` gives parts their sides under protocol grouped, unless `params.remember` is
    false. Undecodable images and castings with both labels are on no side. Choices come from
    hashes of seed and part or path: none depends on the order of `rows`. Raises `DataError` when
    a side would lack a class, and, unless the protocol is shipped, when a casting or identical
    files are on two sides.
    """
    ordered = sorted(rows, key=lambda row: row.path)
    decoded = [row for row in ordered if not has_issue(row, UNDECODABLE)]
    locked = locked_parts(decoded, remembered)
    castings = group_castings((row for row in ordered if row.part not in locked), seed)
    learning = [row for row in decoded if row.part not in locked]
    usable = [row for row in learning if row.part not in castings.mixed]
    assignment = _assign(usable, castings, params, seed, remembered)
    in_lockbox = [row for row in decoded if row.part in locked]
    sides = _with_lockbox(assignment.sides, in_lockbox, params)
    if params.protocol != "shipped":
        check_leaks([row.assigned(sides.get(row.path, "")) for row in decoded])
    kept = _within_limits(decoded, sides, params, seed)
    result = [
        replace(row, split=kept.get(row.path, ""), fold=assignment.folds.get(row.part, -1))
        for row in ordered
    ]
    _check_sides(result, LEAST_CASTINGS[params.protocol])
    dropped = {
        "undecodable": len(ordered) - len(decoded),
        "mixed_label": len(learning) - len(usable),
        "duplicates_of_test": assignment.duplicates_of_test,
        "over_limit": len(sides) - len(kept),
        "seen": assignment.seen,
        "lockbox": sum(row.split == LOCKBOX for row in result),
    }
    return result, {
        "protocol": params.protocol,
        "seed": seed,
        "remembered": assignment.remembered,
        "mixed_label": _listed(castings.mixed),
        "lockbox": {"state": params.lockbox, "castings": len(locked)},
        "dropped": dropped,
        **_figures(result, leaky=params.protocol == "shipped"),
    }


def _with_lockbox(
    sides: Mapping[str, Split], in_lockbox: Sequence[Row], params: SplitParams
) -> dict[str, Split]:
    """Return the sides by path with the lockbox's; an open one takes the place of the test side."""
    paths = [row.path for row in in_lockbox]
    if params.lockbox == "closed":
        return {**sides, **dict.fromkeys(paths, LOCKBOX)}
    if not paths:
        raise DataError(
            "split.lockbox is open, but this data version has no lockbox",
            hint="`zdm data lockbox` sets castings aside; or split.lockbox: closed",
        )
    learning: dict[str, Split] = {p: "train" if s == "test" else s for p, s in sides.items()}
    return {**learning, **dict.fromkeys(paths, "test")}


def _listed(mixed: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    return [{"part": part, "images": [row.path for row in of]} for part, of in mixed.items()]


def _assign(
    rows: Sequence[Row],
    castings: Castings,
    params: SplitParams,
    seed: int,
    remembered: Mapping[str, Split],
) -> Assignment:
    if params.protocol == "grouped":
        return grouped(rows, castings, params, seed, remembered if params.remember else {})
    if params.protocol == "kfold":
        return kfold(rows, castings, params, seed)
    return shipped(rows, params, seed)


def _figures(rows: Sequence[Row], *, leaky: bool) -> dict[str, Any]:
    calibrated = any(row.split == "calibration" for row in rows)
    return {
        "leaky": leaky,
        "parts_on_two_sides": len(leaks(rows)),
        "kin_on_two_sides": scattered_kin(rows),
        "per_split": _counts(rows, [row.path for row in rows]),
        "castings": _counts(rows, [row.part for row in rows]),
        "calibration": OWN_CALIBRATION if calibrated else CROSS_FITTED,
    }


def _within_limits(
    rows: Sequence[Row], sides: Mapping[str, Split], params: SplitParams, seed: int
) -> dict[str, Split]:
    on_side: dict[Split, list[Row]] = defaultdict(list)
    for row in rows:
        if row.path in sides:
            on_side[sides[row.path]].append(row)
    kept: dict[str, Split] = {}
    for side, members in on_side.items():
        limit = params.train_limit if side == "train" else params.holdout_limit
        limit = None if side == LOCKBOX else limit
        kept |= dict.fromkeys(_limited(members, limit, seed), side)
    return kept


def _limited(rows: Sequence[Row], limit: int | None, seed: int) -> list[str]:
    """Return the paths of at most `limit` rows: classes in proportion, castings in turn."""
    if limit is None or len(rows) <= limit:
        return [row.path for row in rows]
    in_turn = _in_turn(rows, seed)
    defects = sum(row.target for row in rows)
    least = min(LEAST, limit // 2, defects, len(rows) - defects)
    quota = min(max(round(limit * defects / len(rows)), least), limit - least)
    by_class = {label: [row.path for row in in_turn if row.label == label] for label in CLASSES}
    return by_class["defect"][:quota] + by_class["ok"][: limit - quota]


def _in_turn(rows: Sequence[Row], seed: int) -> list[Row]:
    """Return one image of every casting, then a second of every casting that has one, ..."""
    taken: Counter[str] = Counter()
    turns: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: rank(seed, row.path)):
        turns[row.path] = taken[row.part]
        taken[row.part] += 1
    return sorted(rows, key=lambda row: (turns[row.path], rank(seed, row.part)))


def _counts(rows: Sequence[Row], names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Count distinct names per side and class."""
    met = {(row.split, row.label, name) for row, name in zip(rows, names, strict=True)}
    counted = Counter((split, label) for split, label, _ in met)
    sides = [side for side in SIDES if any(counted[side, label] for label in CLASSES)]
    return {side: {str(label): counted[side, label] for label in CLASSES} for side in sides}


def _check_sides(rows: Sequence[Row], least: int) -> None:
    counts = _counts(rows, [row.part for row in rows])
    for side in ("train", "val", "test", *counts):
        for label in CLASSES:
            castings = counts.get(side, {}).get(label, 0)
            if castings < least:
                raise DataError(
                    f"the split leaves {side} too few castings: {castings} {label}, "
                    f"at least {least} are needed",
                    hint="add images, or raise the shares or limits under `split:` in params.yaml",
                )
