"""The split: which images train, choose the epoch, set the threshold and test."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any, get_args

from zdm_ml.data.audit import UNDECODABLE, has_issue
from zdm_ml.data.manifest import CLASSES, Label, Row, Split
from zdm_ml.errors import DataError
from zdm_ml.params import SplitParams

SIDES: tuple[Split, ...] = tuple(side for side in get_args(Split) if side)
MIN_PER_SIDE = 1


def split_rows(
    rows: Iterable[Row], params: SplitParams, seed: int
) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows with their sides, sorted by path, and the counts for `reports/split.json`.

    The shipped test set stays the test set; a training image with the same bytes as a test image
    is left out (empty `split`). The other images go to val, calibration and train by part, so
    that no part, and no image, is on two of these sides. Order and choice come from hashes of
    seed and part: neither depends on the order of `rows`. Raises `DataError` when a side would
    lack a class.
    """
    ordered = sorted(rows, key=lambda row: row.path)
    usable = [row for row in ordered if not has_issue(row, UNDECODABLE)]
    test = [row for row in usable if row.shipped_split == "test"]
    held = {row.sha256 for row in test}
    learn = [row for row in usable if row.shipped_split != "test" and row.sha256 not in held]
    sides: dict[Split, list[Row]] = {"test": test, **_by_part(learn, params, seed)}
    kept: dict[str, Split] = {}
    for side, members in sides.items():
        limit = params.train_limit if side == "train" else params.holdout_limit
        kept |= dict.fromkeys(_limited(members, limit, seed), side)
    result = [row.assigned(kept.get(row.path, "")) for row in ordered]
    _check_sides(result)
    dropped = {
        "undecodable": len(ordered) - len(usable),
        "duplicates_of_test": len(usable) - len(test) - len(learn),
        "over_limit": len(test) + len(learn) - len(kept),
    }
    return result, {"seed": seed, "per_split": _counts(result), "dropped": dropped}


def _by_part(rows: Iterable[Row], params: SplitParams, seed: int) -> dict[Split, list[Row]]:
    """Deal parts, in the order of their hashes, to val and calibration until each has its share."""
    sides: dict[Split, list[Row]] = {"val": [], "calibration": [], "train": []}
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        parts[row.part].append(row)
    for label in CLASSES:
        groups = [group for group in parts.values() if _label(group) == label]
        groups.sort(key=lambda group: _rank(seed, group[0].part))
        total = sum(len(group) for group in groups)
        shares: tuple[tuple[Split, float], ...] = (
            ("val", params.val),
            ("calibration", params.calibration),
        )
        for side, share in shares:
            wanted, taken = max(MIN_PER_SIDE, round(share * total)), 0
            while groups and taken < wanted:
                group = groups.pop(0)
                sides[side] += group
                taken += len(group)
        sides["train"] += [row for group in groups for row in group]
    return sides


def _label(group: Iterable[Row]) -> Label:
    """Return the class that a part counts as: one defective image makes it defective."""
    return "defect" if any(row.label == "defect" for row in group) else "ok"


def _limited(rows: Collection[Row], limit: int | None, seed: int) -> list[str]:
    """Return the paths of at most `limit` rows, with the classes in their old proportion."""
    if limit is None or len(rows) <= limit:
        return [row.path for row in rows]
    defects = sum(row.target for row in rows)
    quota = min(max(round(limit * defects / len(rows)), MIN_PER_SIDE), limit - MIN_PER_SIDE)
    ranked = sorted(rows, key=lambda row: _rank(seed, row.path))
    by_class = {label: [row.path for row in ranked if row.label == label] for label in CLASSES}
    return by_class["defect"][:quota] + by_class["ok"][: limit - quota]


def _rank(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _counts(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    counts = {side: dict.fromkeys(CLASSES, 0) for side in SIDES}
    for row in rows:
        if row.split:
            counts[row.split][row.label] += 1
    return {side: {str(label): n for label, n in by.items()} for side, by in counts.items()}


def _check_sides(rows: Iterable[Row]) -> None:
    for side, by_class in _counts(rows).items():
        for label, images in by_class.items():
            if images < MIN_PER_SIDE:
                raise DataError(
                    f"the split leaves no {label} image for {side}",
                    hint="add images, or raise the shares or limits under `split:` in params.yaml",
                )
