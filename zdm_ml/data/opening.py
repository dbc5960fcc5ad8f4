"""Opening a dataset's images: each decoded once, and what is seen in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.images import Grey, ImageRefused, decode_grey
from zdm_ml.data.issues import UNDECODABLE
from zdm_ml.data.layout import CLASS_FOLDERS, Progress
from zdm_ml.data.looks import Looks, Seen, learn_looks
from zdm_ml.data.manifest import Row
from zdm_ml.data.probes import background_features
from zdm_ml.errors import DataError

SAMPLE = 96
"""Images that the common rings of a dataset are learned from."""

CHUNK = 64
"""Images that a process opens at a time; fewer than eight chunks are opened in this process."""


@dataclass(frozen=True)
class Opened:
    """One file: its row so far, and what was seen in it unless it does not decode.

    `features` are `probes.FEATURES`, float32.
    """

    row: Row
    seen: Seen | None = None
    features: npt.NDArray[np.float32] | None = None


def open_all(
    folder: Path, files: Mapping[str, str], max_pixels: int, progress: Progress | None
) -> tuple[Looks, list[Opened]]:
    """Open the images `files` (manifest path -> split/class/name), in path order.

    Many are opened in processes of their own. A file that cannot be read raises `DataError`.
    """
    from joblib import Parallel, cpu_count, delayed

    paths = sorted(files)
    looks = learn_looks(list(_sample(folder, paths, max_pixels)))
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    workers = min(cpu_count(only_physical_cores=False), len(chunks) // 4) or 1
    work = Parallel(n_jobs=workers, return_as="generator")
    opened: list[Opened] = []
    for chunk in work(
        delayed(_open_some)(folder, max_pixels, looks, {path: files[path] for path in chunk})
        for chunk in chunks
    ):
        opened += chunk
        if progress:
            progress(len(opened), len(paths))
    return looks, opened


def _open_some(
    folder: Path, max_pixels: int, looks: Looks, files: Mapping[str, str]
) -> list[Opened]:
    """Open some files one after the other: OpenCV's own threads only get in the way."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return [_open(folder, max_pixels, looks, path, target) for path, target in files.items()]
    finally:
        cv2.setNumThreads(threads)


def _sample(folder: Path, paths: Sequence[str], max_pixels: int) -> Iterator[Grey]:
    places = np.unique(np.linspace(0, len(paths) - 1, min(SAMPLE, len(paths))).astype(int))
    for place in places:
        try:
            yield decode_grey(folder / paths[place], max_pixels=max_pixels)
        except (ImageRefused, OSError):
            continue


def _open(folder: Path, max_pixels: int, looks: Looks, path: str, target: str) -> Opened:
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
        return Opened(row)
    height, width = grey.shape
    mean = round(float(grey.mean()), 3)
    row = replace(row, width=width, height=height, mean_grey=mean, issues="")
    return Opened(row, looks.see(_at_most(grey)), background_features(grey))


def _at_most(grey: Grey, side: int = 600) -> Grey:
    """Return a large image at a size beyond which a casting looks no different."""
    scale = side / max(grey.shape)
    if scale >= 1:
        return grey
    return np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
