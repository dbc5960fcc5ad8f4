"""Inspection of a castings folder: each image decoded once, and which casting it shows."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.fingerprints import mean_power, whiten
from zdm_ml.data.images import Grey, ImageRefused, decode_grey
from zdm_ml.data.layout import CLASS_FOLDERS, Progress
from zdm_ml.data.looks import Looks, Seen, learn_looks
from zdm_ml.data.manifest import Row
from zdm_ml.data.part_ids import PartId, name_parts
from zdm_ml.data.parts import Recovery, Suspect, Threshold, recover
from zdm_ml.data.probes import background_features
from zdm_ml.errors import DataError
from zdm_ml.params import AuditParams

DUPLICATE = "duplicate"
IDENTICAL_ACROSS_SPLITS = "identical_across_splits"
LABEL_CONFLICT = "label_conflict"
MIXED_LABEL = "mixed_label"
UNDECODABLE = "undecodable"

SAMPLE = 96
"""Images that the common rings of a dataset are learned from."""


@dataclass(frozen=True)
class Contradiction:
    """A known part that the pictures deny: `path` looks like `other_path` of another part."""

    path: str
    part: str
    other_path: str
    other_part: str
    similarity: float


@dataclass(frozen=True)
class Inspection:
    """What was seen in a folder.

    `rows` are sorted by path and have no sides. `features` holds `probes.FEATURES` by path;
    `suspects` are pairs that may show one casting although they are less alike than `threshold`.
    """

    rows: list[Row]
    contradictions: list[Contradiction]
    suspects: list[Contradiction]
    threshold: Threshold | None
    features: dict[str, npt.NDArray[np.float32]]
    looks: Looks


@dataclass(frozen=True)
class _Opened:
    """One file: its row so far, and what was seen in it unless it does not decode."""

    row: Row
    seen: Seen | None = None
    features: npt.NDArray[np.float32] | None = None


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
    with _one_thread_per_image():
        looks, opened = _open_all(folder, files, params.max_pixels, progress)
    seen = [each for each in opened if each.seen]
    rows, groups, threshold, suspects = _recognised(seen)
    ids = name_parts(
        [row.path for row in rows],
        [row.sha256 for row in rows],
        groups,
        known=known,
        remembered=remembered,
    )
    named = [_with_part(row, each) for row, each in zip(rows, ids, strict=True)]
    blind = [_unseen(each.row, known) for each in opened if not each.seen]
    features = {each.row.path: each.features for each in seen if each.features is not None}
    marked = _with_issues(named + blind)
    by_path = {row.path: row for row in marked}
    return Inspection(
        rows=marked,
        contradictions=_contradictions(by_path, groups, rows, known),
        suspects=[_pair(by_path, rows, each) for each in suspects],
        threshold=threshold,
        features=features,
        looks=looks,
    )


def has_issue(row: Row, issue: str) -> bool:
    """Tell whether a row's list of issues names `issue`."""
    return issue in row.issues.split(";")


@contextmanager
def _one_thread_per_image() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own in each of ours."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def _open_all(
    folder: Path, files: Mapping[str, str], max_pixels: int, progress: Progress | None
) -> tuple[Looks, list[_Opened]]:
    paths = sorted(files)
    looks = learn_looks(list(_sample(folder, paths, max_pixels)))
    opened: list[_Opened] = []
    open_one = partial(_open, folder, max_pixels, looks)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for each in pool.map(open_one, paths, [files[path] for path in paths]):
            opened.append(each)
            if progress:
                progress(len(opened), len(paths))
    return looks, opened


def _sample(folder: Path, paths: Sequence[str], max_pixels: int) -> Iterator[Grey]:
    places = np.unique(np.linspace(0, len(paths) - 1, min(SAMPLE, len(paths))).astype(int))
    for place in places:
        try:
            yield decode_grey(folder / paths[place], max_pixels=max_pixels)
        except (ImageRefused, OSError):
            continue


def _open(folder: Path, max_pixels: int, looks: Looks, path: str, target: str) -> _Opened:
    split, class_folder, _ = target.split("/")
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
        part=f"part-{digest}",
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
        return _Opened(row)
    height, width = grey.shape
    mean = round(float(grey.mean()), 3)
    row = replace(row, width=width, height=height, mean_grey=mean, issues="")
    return _Opened(row, looks.see(_at_most(grey)), background_features(grey))


def _at_most(grey: Grey, side: int = 600) -> Grey:
    """Return a large image at a size beyond which a casting looks no different."""
    scale = side / max(grey.shape)
    if scale >= 1:
        return grey
    return np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def _recognised(
    seen: Sequence[_Opened],
) -> tuple[list[Row], list[int], Threshold | None, list[Suspect]]:
    """Group what was found by its rings and what was found by its outline, each by itself.

    Returns the rows with their nearest, group numbers that no two ways share, and the threshold
    of the way that most images took.
    """
    rows: list[Row] = []
    groups: list[int] = []
    recoveries: list[tuple[int, Recovery]] = []
    for way in ("ring", "outline"):
        chosen = [each for each in seen if each.seen and each.seen.way == way]
        if not chosen:
            continue
        raw = np.stack([each.seen.spectrum for each in chosen if each.seen])
        found = recover(whiten(raw, mean_power(raw)))
        first = len(rows)
        groups += [first + int(group) for group in found.group]
        rows += [_with_nearest(chosen, found, place, way) for place in range(len(chosen))]
        recoveries.append((first, found))
    suspects = [
        Suspect(first + each.left, first + each.right, each.similarity)
        for first, found in recoveries
        for each in found.suspects
    ]
    largest = max((found for _, found in recoveries), key=lambda it: len(it.group), default=None)
    return rows, groups, largest.threshold if largest else None, suspects


def _with_nearest(chosen: Sequence[_Opened], found: Recovery, place: int, way: str) -> Row:
    nearest = int(found.nearest[place])
    alone = nearest < 0 or int((found.group == found.group[place]).sum()) == 1
    return replace(
        chosen[place].row,
        nearest=chosen[nearest].row.path if nearest >= 0 else "",
        similarity=round(float(found.similarity[place]), 4),
        confidence=round(float(found.confidence[place]), 3),
        identity="alone" if alone else way,
    )


def _with_part(row: Row, found: PartId) -> Row:
    identity = row.identity if found.origin == "recognised" else found.origin
    confidence = 1.0 if found.origin == "known" else row.confidence
    return replace(row, part=found.part, identity=identity, confidence=confidence)


def _unseen(row: Row, known: Mapping[str, str]) -> Row:
    if row.path not in known:
        return row
    return replace(row, part=known[row.path], identity="known", confidence=1.0)


def _with_issues(rows: Sequence[Row]) -> list[Row]:
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


def _contradictions(
    by_path: Mapping[str, Row],
    groups: Sequence[int],
    rows: Sequence[Row],
    known: Mapping[str, str],
) -> list[Contradiction]:
    """Return one example per pair of known parts whose images look like one casting."""
    group_of = {row.path: group for row, group in zip(rows, groups, strict=True)}
    found: dict[tuple[str, str], Contradiction] = {}
    for row in rows:
        ours, theirs = known.get(row.path), known.get(row.nearest)
        if ours is None or theirs is None or ours == theirs:
            continue
        if group_of[row.path] == group_of[row.nearest]:
            key = (min(ours, theirs), max(ours, theirs))
            each = Contradiction(row.path, ours, row.nearest, theirs, row.similarity)
            if key not in found or each.similarity > found[key].similarity:
                found[key] = each
    return [found[key] for key in sorted(found) if by_path[found[key].path]]


def _pair(by_path: Mapping[str, Row], rows: Sequence[Row], suspect: Suspect) -> Contradiction:
    first, second = (by_path[rows[place].path] for place in (suspect.left, suspect.right))
    similarity = round(suspect.similarity, 4)
    return Contradiction(first.path, first.part, second.path, second.part, similarity)
