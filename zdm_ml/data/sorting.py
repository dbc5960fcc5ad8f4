"""Sorting: what each file of the inbox is to the newest data version."""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from zdm_ml.data.images import ImageRefused, decode_grey
from zdm_ml.data.inbox import Inbox, Look
from zdm_ml.data.layout import CLASS_FOLDERS
from zdm_ml.data.listing import Entry
from zdm_ml.data.manifest import Row
from zdm_ml.data.sources import Limits

logger = logging.getLogger(__name__)


@dataclass
class Sorting:
    """Where each file of the inbox goes, by its path there.

    `fresh` gives the path in the data version, `bad` and `conflicts` the reason.
    """

    fresh: dict[str, str] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    conflicts: dict[str, str] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)

    @property
    def settled(self) -> list[str]:
        """The files that may leave the inbox once the version is safe."""
        return [*self.fresh, *self.duplicates, *self.bad, *self.conflicts]

    def move_to_review(self, path: str, reason: str) -> None:
        """Take a file out of what is new."""
        del self.fresh[path]
        self.conflicts[path] = reason


def sort_arrivals(
    inbox: Inbox, looked: Look, folder: Path, listed: Sequence[Entry], *, max_pixels: int
) -> Sorting:
    """Copy the files into `folder`, decode them and compare their bytes with the data version.

    What cannot be read, or does not decode but was written lately, waits for the next time.
    """
    sorting, now = Sorting(), dt.datetime.now(dt.UTC)
    known = _labels(listed)
    seen: dict[str, str] = {}
    taken = {entry.path for entry in listed}
    for path, (size, _) in sorted(looked.items()):
        content = _read(inbox, path, size)
        if content is None:
            sorting.waiting.append(path)
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        if reason := _refusal(path, content, max_pixels):
            if inbox.is_young(path, now):
                sorting.waiting.append(path)
            else:
                sorting.bad[path] = reason
            continue
        sha256 = hashlib.sha256(content).hexdigest()
        _compare(sorting, path, known.get(sha256, {}), seen.setdefault(sha256, path))
        if path in sorting.fresh:
            sorting.fresh[path] = _free_path(path, sha256, taken)
            taken.add(sorting.fresh[path])
    return sorting


def _read(inbox: Inbox, path: str, size: int) -> bytes | None:
    """Return a file that is as large as it looked, else None."""
    if size > Limits().file_bytes:
        logger.warning("%s stays in the inbox: it has %s bytes", path, f"{size:,}")
        return None
    try:
        content = inbox.read(path)
    except OSError as error:
        logger.warning("%s stays in the inbox: %s", path, error)
        return None
    return content if len(content) == size else None


def _refusal(path: str, content: bytes, max_pixels: int) -> str:
    if not path.isprintable():
        return "unusable_name: control characters or bytes that are not text"
    try:
        decode_grey(content, max_pixels=max_pixels)
    except ImageRefused as error:
        return f"{error.reason}: {error.problem}"
    return ""


def _compare(sorting: Sorting, path: str, known: Mapping[str, str], first: str) -> None:
    """Enter a sound file; `known` gives a path for each label its bytes have in the version."""
    label = inbox_label(path)
    if label in known:
        sorting.duplicates.append(path)
    elif known:
        other, place = next(iter(known.items()))
        sorting.conflicts[path] = f"label conflict: the same image is {other} in {place}"
    elif first == path:
        sorting.fresh[path] = ""
    elif inbox_label(first) == label:
        sorting.duplicates.append(path)
    else:
        sorting.conflicts[path] = f"label conflict: the same image is {first}"
        if first in sorting.fresh:
            sorting.move_to_review(first, f"label conflict: the same image is {path}")


def inbox_label(path: str) -> str:
    """Return the label of a file by its folder in the inbox."""
    return CLASS_FOLDERS[path.split("/")[0]]


def review_conflicts(sorting: Sorting, rows: Iterable[Row]) -> set[str]:
    """Send new images to review whose casting carries the other label; return their targets.

    What the data version says of a casting counts: a new image is compared with new ones only
    where the casting is new.
    """
    sources = {target: source for source, target in sorting.fresh.items()}
    rows = sorted(rows, key=lambda row: row.path)
    established = {row.part for row in rows if row.path not in sources}
    carriers: dict[str, dict[str, str]] = {}
    for row in rows:
        if row.path not in sources or row.part not in established:
            carriers.setdefault(row.part, {}).setdefault(row.label, row.path)
    sent = set()
    for row in rows:
        others = {k: v for k, v in carriers[row.part].items() if k != row.label}
        if row.path in sources and others:
            other, place = next(iter(others.items()))
            place = sources.get(place, place)
            reason = f"label conflict: casting {row.part} is {other} in {place}"
            sorting.move_to_review(sources[row.path], reason)
            sent.add(row.path)
    return sent


def _labels(listed: Iterable[Entry]) -> dict[str, dict[str, str]]:
    labels: dict[str, dict[str, str]] = {}
    for entry in listed:
        labels.setdefault(entry.sha256, {}).setdefault(entry.label, entry.path)
    return labels


def _free_path(path: str, sha256: str, taken: set[str]) -> str:
    """Return a path under train/ that no other image has, made of the name where possible."""
    name = PurePosixPath(path)
    folder = f"train/{name.parts[0]}"
    for mark in ("", f"_{sha256[:8]}", f"_{sha256}"):
        target = f"{folder}/{name.stem}{mark}{name.suffix}"
        if target not in taken:
            return target
    return f"{folder}/{sha256}{name.suffix}"
