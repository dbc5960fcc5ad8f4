"""Resident arrays: the images of one data version, decoded once for all trainings."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from filelock import FileLock

from zdm_ml.data.images import Grey, read_stack
from zdm_ml.data.layout import Progress
from zdm_ml.data.manifest import Row
from zdm_ml.files import atomic_write

log = logging.getLogger(__name__)

DECODER = 1
"""Raise it whenever `read_stack` gives other pixels for the same files."""

KEPT = 4
"""Arrays that stay in a cache, the one in use included."""

IN_USE_SECONDS = 3600.0
"""An array opened less than this ago stays, however many there are."""

BLOCK_BYTES = 24 * 2**20
"""Pixels decoded at a time, while as many are written; malloc hands out the same memory again."""

CHECKSUM_BYTES = hashlib.sha256().digest_size


def resident_array(
    folder: Path, rows: Sequence[Row], size: int, cache: Path, progress: Progress | None = None
) -> Grey:
    """Return the rows' images below `folder`, read-only uint8 [N, size, size], in the rows' order.

    The array is mapped from a file in `cache` that is named by the content of the images: whoever
    asks for the same ones shares it, and its memory; the first decodes them while the others wait.
    Give all decodable rows of a manifest and index the array, so that every side of the split does.
    A cache that cannot be written is a warning, and the array is in memory. An image that is
    missing, refused or not the one that its row names raises `DataError`.
    """
    if not rows:
        return np.empty((0, size, size), dtype=np.uint8)
    path = cache / f"{_key(rows, size)}.npy"
    try:
        return _shared(path, folder, rows, size, progress)
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        log.warning("%s cannot be used (%s): its images are decoded into memory", path, error)
    stack = read_stack(folder, _paths(rows), size, digests=_digests(rows))
    stack.setflags(write=False)
    return stack


def _key(rows: Sequence[Row], size: int) -> str:
    content = "\n".join((str(DECODER), str(size), *_digests(rows)))
    return hashlib.sha256(content.encode()).hexdigest()


def _paths(rows: Sequence[Row]) -> list[str]:
    return [row.path for row in rows]


def _digests(rows: Sequence[Row]) -> list[str]:
    return [row.sha256 for row in rows]


def _shared(
    path: Path, folder: Path, rows: Sequence[Row], size: int, progress: Progress | None
) -> Grey:
    shape = (len(rows), size, size)
    found = _mapped(path, shape)
    if found is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / "resident.lock"):
            found = _mapped(path, shape)
            if found is None:
                _make(path, folder, rows, size, progress)
                found = _mapped(path, shape)
    if found is None:
        raise OSError("what was written does not come back")
    with contextlib.suppress(OSError):  # the time of the last use only helps pruning
        os.utime(path)
    return found


def _mapped(path: Path, shape: tuple[int, int, int]) -> Grey | None:
    """Return the array in a file, or None when there is none or it is not what was written."""
    header = _header(shape)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        whole = len(header) + math.prod(shape) + CHECKSUM_BYTES
        if os.fstat(file.fileno()).st_size != whole or file.read(len(header)) != header:
            return None
        file.seek(-CHECKSUM_BYTES, os.SEEK_END)
        checksum = file.read()
        array = np.memmap(file, np.uint8, "r", len(header), shape)
    step = _block(shape[1])
    blocks = (array[start : start + step] for start in range(0, shape[0], step))
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(_sums(block))
    return np.asarray(array) if digest.digest() == checksum else None


def _make(
    path: Path, folder: Path, rows: Sequence[Row], size: int, progress: Progress | None
) -> None:
    """Decode the rows' images into a file, block by block: they are never in memory as a whole.

    One block is written while the next is decoded, and written rather than mapped: a disk that
    fills up under a mapping ends the process.
    """
    if path.exists():
        log.warning("%s is damaged: its images are decoded again", path)
    _prune(path)
    log.info("decoding %d images at %d px for all who use them", len(rows), size)
    digest, step = hashlib.sha256(), _block(size)
    with atomic_write(path, durable=False) as file:  # the checksum tells a file that lacks parts

        def keep(block: Grey) -> None:
            file.write(block.data)
            digest.update(_sums(block))

        file.write(_header((len(rows), size, size)))
        with ThreadPoolExecutor(1) as writer:
            kept: Future[None] | None = None
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                block = read_stack(folder, _paths(part), size, digests=_digests(part))
                if kept is not None:
                    kept.result()
                kept = writer.submit(keep, block)
                if progress:
                    progress(start + len(part), len(rows))
            if kept is not None:
                kept.result()
        file.write(digest.digest())


def _header(shape: tuple[int, int, int]) -> bytes:
    """Return how an .npy file of this shape begins."""
    buffer = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def _block(size: int) -> int:
    """Return how many images are handled at a time."""
    return max(1, BLOCK_BYTES // size**2)


def _sums(block: Grey) -> bytes:
    """Return what the checksum takes of a block: its sum in words of eight bytes, and the rest.

    Not all of its pixels: the checksum is made at each opening, and adding is ten times as fast.
    """
    flat = block.reshape(-1)
    words = flat[: len(flat) // 8 * 8].view(np.uint64)
    total: np.uint64 = words.sum()
    return total.tobytes() + flat[words.nbytes :].tobytes()


def _prune(path: Path) -> None:
    """Make room for `path`: drop the arrays longest unused, and what a killed process left."""
    for litter in path.parent.glob(".*.npy.*.tmp"):  # only who holds the lock writes
        litter.unlink(missing_ok=True)
    used = {other: other.stat().st_mtime for other in path.parent.glob("*.npy") if other != path}
    for other in sorted(used, key=used.__getitem__, reverse=True)[KEPT - 1 :]:
        if time.time() - used[other] > IN_USE_SECONDS:
            log.info("%s is dropped: unused for long", other)
            other.unlink(missing_ok=True)
