"""Integrity: the images in a folder are the ones that its castings list names, byte for byte."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from zdm_ml.data.listing import Entry
from zdm_ml.errors import DataError
from zdm_ml.files import read_json, sha256_file, write_json

MEMORY_FILE = ".zdm-verified.json"
SHOWN = 10
THREADS = 4

Memory = dict[str, tuple[int, int, str]]
"""Size, mtime in ns and sha256 of each path that was hashed and found right."""


@dataclass(frozen=True)
class Damage:
    """Paths relative to the folder by what is wrong with them."""

    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    truncated: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.missing, self.extra, self.truncated, self.altered))

    @property
    def broken(self) -> tuple[str, ...]:
        """The paths whose bytes have to come back."""
        return self.missing + self.truncated + self.altered

    def __str__(self) -> str:
        found = {
            "missing": self.missing,
            "truncated": self.truncated,
            "altered": self.altered,
            "not in the castings list": self.extra,
        }
        return "; ".join(f"{len(p)} {what}: {_shown(p)}" for what, p in found.items() if p)


def verify(folder: Path, entries: Iterable[Entry], *, memory: Path | None = None) -> None:
    """Raise `DataError` naming every file of `folder` that is not what its entry says.

    A file whose size and mtime are those that `memory` remembers from an earlier check is taken
    for right; every other one is hashed. Without `memory` all are.
    """
    damage = find_damage(folder, entries, memory=memory)
    if damage:
        raise DataError(
            f"images in {folder} are not those of the data version: {damage}",
            hint="`zdm data checkout` brings them back; a retraining: trigger a new one",
        )


def find_damage(folder: Path, entries: Iterable[Entry], *, memory: Path | None = None) -> Damage:
    """Compare the files below `folder` with the entries; remember in `memory` what was right."""
    listed = {entry.path: entry for entry in entries}
    found = _files(folder)
    known = _read_memory(memory)
    trusted: Memory = {}
    doubtful: list[str] = []
    truncated: list[str] = []
    altered: list[str] = []
    for path in sorted(listed.keys() & found.keys()):
        entry, (size, mtime) = listed[path], found[path]
        if size != entry.size:
            (truncated if size < entry.size else altered).append(path)
        elif known.get(path) == (size, mtime, entry.sha256):
            trusted[path] = known[path]
        else:
            doubtful.append(path)
    with ThreadPoolExecutor(THREADS) as pool:
        digests = pool.map(sha256_file, (folder / path for path in doubtful))
        for path, digest in zip(doubtful, digests, strict=True):
            if digest == listed[path].sha256:
                trusted[path] = (*found[path], digest)
            else:
                altered.append(path)
    if memory is not None and trusted != known:
        write_json(memory, trusted)
    return Damage(
        missing=tuple(sorted(listed.keys() - found.keys())),
        extra=tuple(sorted(path for path in found.keys() - listed.keys() if not _is_litter(path))),
        truncated=tuple(truncated),
        altered=tuple(sorted(altered)),
    )


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and mtime of every regular file below `folder` by relative path."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file():
                status = path.stat()
                found[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return found


def _is_litter(path: str) -> bool:
    """Tell whether only an operating system put the file there."""
    name = path.rsplit("/", 1)[-1]
    return name.startswith(".") or name == "Thumbs.db"


def _read_memory(memory: Path | None) -> Memory:
    """Return what is remembered; a file that cannot be read remembers nothing."""
    if memory is None or not memory.is_file():
        return {}
    try:
        return {path: (int(a), int(b), str(c)) for path, (a, b, c) in read_json(memory).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _shown(paths: tuple[str, ...]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more
