"""Files of features: whole or not there, one writer at a time, the longest unused dropped."""

from __future__ import annotations

import fcntl
import hashlib
import io
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zdm_ml.files import write_bytes
from zdm_ml.training.sides import Targets

log = logging.getLogger(__name__)

Features = npt.NDArray[np.floating[Any]]

# Bytes of the disk that are left to other programs.
_SPARE = 1 << 28
# Trunks times sides whose features stay: what all eight models use, and what was used just now.
_KEPT = 16
_IN_USE_SECONDS = 3600.0
_LOCK = "lock"


@dataclass
class Shelf:
    """A folder of pieces; what it cannot hold stays in memory."""

    folder: Path
    writable: bool = True

    def piece(
        self, name: str, compute: Callable[[], tuple[Features, Targets]]
    ) -> tuple[Features, Targets]:
        """Return a piece from its file, or compute and keep it."""
        path = self.folder / f"{name}.npy"
        return _read(path) or self.keep(path, *compute())

    def mark(self) -> None:
        """Note the time of use, which pruning goes by."""
        with suppress(OSError):
            os.utime(self.folder / _LOCK)

    def keep(self, path: Path, features: Features, targets: Targets) -> tuple[Features, Targets]:
        """Move a piece to its file; after a failure nothing is written any more."""
        try:
            if self.writable:
                _write(path, features, targets)
                return _read(path) or (features, targets)
        except OSError as error:
            log.warning("features %s not written: %s; they stay in memory", path, error)
            self.writable = False
        return features, targets


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process fills `folder`, if it can be made at all."""
    with ExitStack() as stack:
        with suppress(OSError):  # a write that fails says why
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / _LOCK).open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # filelock's way; a bare GPU node has no filelock
        yield


def prune(folder: Path) -> None:
    """Drop the shelves longest unused; who has one mapped keeps it until the mapping ends."""
    used: dict[Path, float] = {}
    for lock in folder.glob(f"*/{_LOCK}"):
        with suppress(OSError):  # another process prunes, too
            used[lock] = lock.stat().st_mtime
    for lock in sorted(used, key=used.__getitem__, reverse=True)[_KEPT:]:
        if time.time() - used[lock] > _IN_USE_SECONDS:
            log.info("features %s are dropped: unused for long", lock.parent)
            shutil.rmtree(lock.parent, ignore_errors=True)


def _write(path: Path, features: Features, targets: Targets) -> None:
    """Write features and targets as .npy, one behind the other, and their sha256."""
    content = io.BytesIO()
    np.save(content, features)
    np.save(content, targets)
    content.write(hashlib.sha256(content.getbuffer()).digest())
    if shutil.disk_usage(path.parent).free < content.tell() + _SPARE:
        raise OSError("the disk is full but for a reserve")
    write_bytes(path, content.getvalue())


def _read(path: Path) -> tuple[Features, Targets] | None:
    """Return the piece at `path`, or None, with a warning if there is one that is damaged."""
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
        if hashlib.sha256(memoryview(content)[:-32]).digest() != content[-32:]:
            raise ValueError("its sha256 is not the one at its end")
        features = np.load(path, mmap_mode="r")
        return features, np.load(io.BytesIO(content[features.offset + features.nbytes :]))
    except (OSError, ValueError) as error:
        log.warning("features %s ignored: %s; they are computed again", path, error)
        return None
