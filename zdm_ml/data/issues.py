"""What may be wrong with an image, by name, in its row's list of issues."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from zdm_ml.data.manifest import Row

DUPLICATE = "duplicate"
IDENTICAL_ACROSS_SPLITS = "identical_across_splits"
LABEL_CONFLICT = "label_conflict"
MIXED_LABEL = "mixed_label"
UNDECODABLE = "undecodable"


def has_issue(row: Row, issue: str) -> bool:
    """Tell whether a row's list of issues names `issue`."""
    return issue in row.issues.split(";")


def with_issues(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, sorted by path, with what only shows beside the others.

    `label_conflict` marks equal bytes with two labels, `mixed_label` a casting with both.
    """
    by_bytes, by_part = defaultdict(list), defaultdict(set)
    for row in rows:
        by_bytes[row.sha256].append(row)
        if row.issues != UNDECODABLE:
            by_part[row.part].add(row.label)
    marked = [_marked(row, by_bytes[row.sha256], len(by_part[row.part]) > 1) for row in rows]
    return sorted(marked, key=lambda row: row.path)


def _marked(row: Row, same: Sequence[Row], mixed: bool) -> Row:
    facts = {
        DUPLICATE: len(same) > 1,
        IDENTICAL_ACROSS_SPLITS: len({other.shipped_split for other in same}) > 1,
        LABEL_CONFLICT: len({other.label for other in same}) > 1,
        MIXED_LABEL: mixed,
    }
    issues = [row.issues] if row.issues else []
    return replace(row, issues=";".join(issues + [name for name, holds in facts.items() if holds]))
