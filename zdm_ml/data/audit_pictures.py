"""The pictures of an audit: which images show what is wrong, small enough for one page."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np

from zdm_ml.data.audit import Audit
from zdm_ml.data.images import Grey, decode_grey
from zdm_ml.data.inspection import Contradiction
from zdm_ml.data.manifest import CLASSES, Row

SIDE = 180
QUALITY = 82
MOST_PAIRS = 9
MOST_SINGLES = 8
T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """One picture as a data URI, with its path and what is to be seen."""

    src: str
    path: str
    label: str
    note: str


@dataclass(frozen=True)
class Pair:
    """Two pictures of one casting, turned alike; `note` says what is to be seen."""

    left: Picture
    right: Picture
    note: str


def leaking_pairs(audit: Audit) -> list[Pair]:
    """Return test images beside a train image of the same casting, one pair per casting."""
    pairs = []
    for part, members in _parts(audit):
        test = [row for row in members if row.shipped_split == "test"]
        train = {row.path: row for row in members if row.shipped_split == "train"}
        if test and train:
            row = next((row for row in test if row.nearest in train), test[0])
            pairs.append((part, row, train.get(row.nearest) or next(iter(train.values()))))
    return [
        _pair(audit, test, train, _short(part)) for part, test, train in _spread(pairs, MOST_PAIRS)
    ]


def conflicting_pairs(audit: Audit) -> list[Pair]:
    """Return a defective beside a good image of each casting that has both labels."""
    pairs = []
    for part, members in _parts(audit):
        first = {label: next((r for r in members if r.label == label), None) for label in CLASSES}
        defect, good = first["defect"], first["ok"]
        if defect and good:
            partner = next(
                (r for r in members if r.path == defect.nearest and r.label == "ok"), good
            )
            pairs.append((part, defect, partner))
    return [
        _pair(audit, defect, good, _short(part))
        for part, defect, good in _spread(pairs, MOST_PAIRS)
    ]


def near_duplicate_pairs(audit: Audit) -> list[Pair]:
    """Return the first two images of some groups of near duplicates, as they are."""
    by_path = {row.path: row for row in audit.rows}
    groups = audit.report["near_duplicate_images"]
    return [
        _pair(
            audit,
            by_path[group[0]],
            by_path[group[1]],
            _short(by_path[group[0]].part),
            turned=False,
        )
        for group in _spread(groups, MOST_PAIRS // 3)
    ]


def contradicting_pairs(audit: Audit) -> list[Pair]:
    """Return images whose named casting the looks deny, beside what they look like."""
    found = audit.inspection.contradictions
    return [_compared(audit, item, "looks like") for item in found[:MOST_PAIRS]]


def suspected_pairs(audit: Audit) -> list[Pair]:
    """Return the most similar images that count as different castings and may be one."""
    found = sorted(audit.inspection.suspects, key=lambda item: (-item.similarity, item.path))
    return [_compared(audit, item, "and") for item in found[:MOST_PAIRS]]


def brightness_extremes(audit: Audit) -> list[Picture]:
    """Return the darkest and the brightest images, at most one of each casting."""
    ranked = sorted(_decoded(audit), key=lambda row: (row.mean_grey, row.path))
    half = MOST_SINGLES // 2
    dark = _one_per_part(ranked)[:half]
    bright = [row for row in _one_per_part(reversed(ranked)) if row not in dark][:half]
    return [_picture(audit, row, f"grey {row.mean_grey:.0f}") for row in (*dark, *reversed(bright))]


def class_outliers(audit: Audit) -> list[Picture]:
    """Return the images whose light and background are the farthest from those of their class.

    Distance: the root of the mean square over the features, each in units of 1.4826 median
    absolute deviations, which is a standard deviation where levels are normal.
    """
    distance: dict[str, float] = {}
    for label in CLASSES:
        paths = [row.path for row in _decoded(audit) if row.label == label]
        table = np.stack([audit.inspection.features[path] for path in paths]).astype(np.float64)
        centre = np.median(table, axis=0)
        spread = np.maximum(1.4826 * np.median(np.abs(table - centre), axis=0), 1.0)
        distance |= dict(
            zip(paths, np.sqrt((((table - centre) / spread) ** 2).mean(1)), strict=True)
        )
    ranked = sorted(_decoded(audit), key=lambda row: (-distance[row.path], row.path))
    return [
        _picture(audit, row, f"{distance[row.path]:.1f} sd")
        for row in _one_per_part(ranked)[:MOST_SINGLES]
    ]


def single_castings(audit: Audit) -> list[Picture]:
    """Return the images that are the only ones of their casting, the least similar ones first."""
    alone = [members[0] for _, members in _parts(audit) if len(members) == 1]
    alone.sort(key=lambda row: (row.similarity, row.path))
    return [
        _picture(audit, row, f"best match {row.similarity:.2f}" if row.nearest else "")
        for row in alone[:MOST_SINGLES]
    ]


def lighting_samples(audit: Audit) -> dict[str, list[Picture]]:
    """Return some images of each lighting cluster, in order of brightness."""
    clusters = defaultdict(list)
    for row in sorted(_decoded(audit), key=lambda row: (row.mean_grey, row.path)):
        clusters[row.lighting].append(row)
    return {
        name: [_picture(audit, row, f"grey {row.mean_grey:.0f}") for row in _spread(members, 6)]
        for name, members in sorted(clusters.items())
    }


def _compared(audit: Audit, item: Contradiction, how: str) -> Pair:
    rows = {row.path: row for row in audit.rows if row.path in (item.path, item.other_path)}
    note = f"{_short(item.part)} {how} {_short(item.other_part)}: {item.similarity:.2f}"
    return _pair(audit, rows[item.path], rows[item.other_path], note)


def _pair(audit: Audit, left: Row, right: Row, note: str, *, turned: bool = True) -> Pair:
    one, other = _grey(audit, left), _grey(audit, right)
    if turned:
        one, other, _ = audit.inspection.looks.aligned_pair(one, other)
    sides = (_shown(one, left, left.shipped_split), _shown(other, right, right.shipped_split))
    return Pair(*sides, note)


def _picture(audit: Audit, row: Row, note: str) -> Picture:
    return _shown(_grey(audit, row), row, note)


def _grey(audit: Audit, row: Row) -> Grey:
    return decode_grey(audit.folder / row.path, max_pixels=None)


def _shown(grey: Grey, row: Row, note: str) -> Picture:
    height, width = grey.shape
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    encoded = base64.b64encode(content.tobytes()).decode()
    return Picture(f"data:image/jpeg;base64,{encoded}", row.path, row.label, note)


def _decoded(audit: Audit) -> list[Row]:
    return [row for row in audit.rows if row.path in audit.inspection.features]


def _parts(audit: Audit) -> list[tuple[str, list[Row]]]:
    parts = defaultdict(list)
    for row in _decoded(audit):
        parts[row.part].append(row)
    return sorted(parts.items())


def _one_per_part(rows: Iterable[Row]) -> list[Row]:
    seen: dict[str, Row] = {}
    for row in rows:
        seen.setdefault(row.part, row)
    return list(seen.values())


def _spread(items: Sequence[T], most: int) -> list[T]:
    """Return at most `most` items, evenly spaced."""
    if len(items) <= most:
        return list(items)
    return [items[index * len(items) // most] for index in range(most)]


def _short(part: str) -> str:
    return part if len(part) <= 16 else part[:12]
