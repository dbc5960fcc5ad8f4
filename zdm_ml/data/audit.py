"""Audit: what the images of a dataset folder are, and what is wrong with them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from zdm_ml.data.images import ImageRefused, decode_grey
from zdm_ml.data.layout import (
    CLASS_FOLDERS,
    SHIPPED_SPLITS,
    Progress,
    check_complete,
    count_images,
    image_paths,
)
from zdm_ml.data.manifest import CLASSES, Row
from zdm_ml.errors import DataError
from zdm_ml.params import AuditParams

DUPLICATE = "duplicate"
IDENTICAL_ACROSS_SPLITS = "identical_across_splits"
LABEL_CONFLICT = "label_conflict"
UNDECODABLE = "undecodable"
THREADS = 8


def audit_images(
    folder: Path, params: AuditParams, *, progress: Progress | None = None
) -> tuple[list[Row], dict[str, Any]]:
    """Return a manifest row per image, sorted by path, and the counts for `reports/audit.json`.

    Every image is its own part here. Raises `DataError` when the folder is missing, lacks a class
    or holds too few images that decode.
    """
    if not folder.is_dir():
        raise DataError(
            f"castings folder {folder} is missing",
            hint="import images with `zdm data import SOURCE`",
        )
    paths = image_paths(folder)
    check_complete(count_images(paths), str(folder))
    rows = []
    with ThreadPoolExecutor(THREADS) as pool:
        for row in pool.map(partial(_inspect, folder, params.max_pixels), paths):
            rows.append(row)
            if progress:
                progress(len(rows), len(paths))
    usable = [row.path for row in rows if not row.issues]
    check_complete(count_images(usable), f"{folder} without its undecodable images")
    rows = _with_shared_bytes(rows)
    return rows, _report(rows)


def has_issue(row: Row, issue: str) -> bool:
    """Tell whether a row's list of issues names `issue`."""
    return issue in row.issues.split(";")


def _inspect(folder: Path, max_pixels: int, path: str) -> Row:
    split, class_folder, _ = path.split("/")
    try:
        content = (folder / path).read_bytes()
    except OSError as error:
        raise DataError(
            f"image {folder / path} cannot be read: {error.strerror}",
            hint="restore the images with `zdm data checkout`",
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    row = Row(
        path=path,
        sha256=digest,
        label=CLASS_FOLDERS[class_folder],
        part=digest,
        shipped_split=split,
        split="",
        fold=-1,
        width=0,
        height=0,
        mean_grey=0.0,
        lighting="",
        issues=UNDECODABLE,
    )
    try:
        grey = decode_grey(content, max_pixels=max_pixels)
    except ImageRefused:
        return row
    height, width = grey.shape
    mean = round(float(grey.mean()), 3)
    return replace(row, width=width, height=height, mean_grey=mean, issues="")


def _with_shared_bytes(rows: Iterable[Row]) -> list[Row]:
    by_bytes = defaultdict(list)
    for row in rows:
        by_bytes[row.sha256].append(row)
    marked = [_marked(row, by_bytes[row.sha256]) for row in rows]
    return sorted(marked, key=lambda row: row.path)


def _marked(row: Row, same: list[Row]) -> Row:
    facts = {
        DUPLICATE: len(same) > 1,
        IDENTICAL_ACROSS_SPLITS: len({other.shipped_split for other in same}) > 1,
        LABEL_CONFLICT: len({other.label for other in same}) > 1,
    }
    issues = [row.issues] if row.issues else []
    return replace(row, issues=";".join(issues + [name for name, holds in facts.items() if holds]))


def _report(rows: list[Row]) -> dict[str, Any]:
    decoded = [row for row in rows if not has_issue(row, UNDECODABLE)]

    def images(issue: str) -> int:
        return len({row.sha256 for row in rows if has_issue(row, issue)})

    return {
        "images": len(rows),
        "distinct_images": len({row.sha256 for row in rows}),
        "undecodable": len(rows) - len(decoded),
        "per_split": {
            split: _per_class(row for row in rows if row.shipped_split == split)
            for split in SHIPPED_SPLITS
        },
        "exact_duplicates": len(rows) - len({row.sha256 for row in rows}),
        "identical_across_splits": images(IDENTICAL_ACROSS_SPLITS),
        "label_conflicts": images(LABEL_CONFLICT),
        "mean_grey": {label: _mean_grey(decoded, label) for label in CLASSES},
        "sizes": dict(sorted(Counter(f"{row.width}x{row.height}" for row in decoded).items())),
    }


def _per_class(rows: Iterable[Row]) -> dict[str, int]:
    counts = Counter(row.label for row in rows)
    return {label: counts[label] for label in CLASSES}


def _mean_grey(rows: list[Row], label: str) -> float:
    levels = [row.mean_grey for row in rows if row.label == label]
    return round(sum(levels) / len(levels), 3)
