"""Staging: the castings in a zip or folder, each decoded once, in the product's own layout."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from zdm_ml.data.images import ImageRefused, decode_grey
from zdm_ml.data.known_parts import PARTS_FILE, Known, known_parts, parts_file_places
from zdm_ml.data.layout import (
    CLASS_FOLDERS,
    SHIPPED_SPLITS,
    Counts,
    Progress,
    check_complete,
    count_images,
    target_path,
)
from zdm_ml.data.sources import Limits, Source, open_source
from zdm_ml.errors import ArchiveError, DataError
from zdm_ml.files import write_bytes, write_text

log = logging.getLogger(__name__)

OTHER_SET = "casting_512x512"
THREADS = 8


@dataclass(frozen=True)
class Quarantined:
    """One file left out; `path` is its name in the source."""

    path: str
    reason: str


@dataclass(frozen=True)
class Staged:
    """What was staged; `quarantine` is the folder of the bad files, None without any.

    `known` maps the staged paths whose casting the source names to that casting, `kinds` those
    whose kinds of defect it names to them.
    """

    images: int
    per_split: Counts
    quarantined: tuple[Quarantined, ...]
    quarantine: Path | None
    ignored: int
    known: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The counts in words, for a commit message or a log line."""
        return ", ".join(
            f"{split} " + " + ".join(f"{count} {label}" for label, count in by_class.items())
            for split, by_class in self.per_split.items()
        )


def stage_source(
    source: str | Path,
    destination: Path,
    *,
    quarantine: Path,
    max_pixels: int,
    part_pattern: str | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Staged:
    """Fill `destination` with the good images of a zip or folder, byte for byte.

    Files that do not decode go to a folder under `quarantine`, named by their content, with
    `reasons.csv`. `destination` is replaced as a whole at the very end: after a refusal
    (`ArchiveError`, `DataError`) it is what it was before.
    """
    origin = Path(source).expanduser()
    with open_source(origin, limits or Limits()) as files:
        targets, ignored = _plan(files.names)
        check_complete(count_images(targets), str(origin))
        known = _known(files, targets, part_pattern)
        try:
            with _replacement(destination) as folder:
                bad = _copy_good(files, targets, folder, max_pixels, progress)
                kept = keep_aside(files, bad, quarantine) if bad else None
                counts = count_images(target for target in targets if targets[target] not in bad)
                check_complete(counts, f"{origin} without {len(bad)} unusable files")
        except OSError as error:
            raise DataError(
                f"castings cannot be written to {destination}: {error.strerror}",
                hint="free some space or correct the owner of the folder; nothing was imported",
            ) from error
    listed = tuple(Quarantined(name, reason) for name, reason in sorted(bad.items()))
    return Staged(
        len(targets) - len(bad),
        counts,
        listed,
        kept,
        ignored,
        known={path: part for path, part in known.parts.items() if targets[path] not in bad},
        kinds={path: named for path, named in known.kinds.items() if targets[path] not in bad},
        warnings=tuple(known.warnings),
    )


def _known(files: Source, targets: Mapping[str, str], pattern: str | None) -> Known:
    """Return what the source says of each target."""
    named = {name: target for target, name in targets.items()}
    lists = {}
    for place in parts_file_places(named):
        if place in files.names:
            try:
                lists[place] = files.read(place).decode("utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(
                    f"{place} cannot be read: {error}", hint="save it as CSV in UTF-8"
                ) from error
    known = known_parts(named, lists, pattern)
    return replace(
        known,
        parts={named[name]: part for name, part in known.parts.items()},
        kinds={named[name]: kinds for name, kinds in known.kinds.items()},
    )


def _plan(names: tuple[str, ...]) -> tuple[dict[str, str], int]:
    """Map each target `split/class/name` to its source name, and count the ignored files."""
    targets: dict[str, str] = {}
    other = ignored = 0
    for name in names:
        parts = tuple(name.split("/"))
        target = target_path(parts)
        if OTHER_SET in parts:
            other += 1
        elif target is None:
            ignored += parts[-1] != PARTS_FILE
        elif target in targets:
            raise ArchiveError(
                f"{name!r} and {targets[target]!r} would both become {target!r}",
                hint="import one dataset at a time",
            )
        else:
            targets[target] = name
    if other:
        log.info("%s: %d files of another resolution ignored", OTHER_SET, other)
    if ignored:
        log.info("%d files outside train|test/def_front|ok_front ignored", ignored)
    return targets, other + ignored


def _copy_good(
    files: Source,
    targets: Mapping[str, str],
    folder: Path,
    max_pixels: int,
    progress: Progress | None,
) -> dict[str, str]:
    """Copy what decodes into `folder`; return the reason for each source name that does not."""
    for split in SHIPPED_SPLITS:
        for class_folder in CLASS_FOLDERS:
            (folder / split / class_folder).mkdir(parents=True)
    copy = partial(_copy_one, files, folder, max_pixels)
    bad: dict[str, str] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(copy, targets.keys(), targets.values())
        for done, (name, reason) in enumerate(zip(targets.values(), results, strict=True), 1):
            if reason:
                bad[name] = reason
            if progress:
                progress(done, len(targets))
    return bad


def _copy_one(files: Source, folder: Path, max_pixels: int, target: str, name: str) -> str:
    """Copy one image and return "", or leave it and return the reason."""
    if not target.isprintable():
        return "unusable_name: control characters or bytes that are not text"
    try:
        content = files.read(name)
    except OSError as error:
        return f"unreadable: {error}"
    try:
        decode_grey(content, max_pixels=max_pixels)
    except ImageRefused as error:
        return f"{error.reason}: {error.problem}"
    (folder / target).write_bytes(content)
    return ""


def keep_aside(files: Source, bad: Mapping[str, str], quarantine: Path) -> Path:
    """Keep files with a reason each, and return their folder below `quarantine`.

    It is named by their content, so that a repeat adds nothing; reasons.csv is written last.
    """
    digest = hashlib.sha256()
    for name in sorted(bad):
        digest.update(ascii(name).encode() + hashlib.sha256(_content(files, name)).digest())
    folder = quarantine / digest.hexdigest()[:16]
    reasons = io.StringIO()
    writer = csv.writer(reasons, lineterminator="\n")
    writer.writerow(("path", "reason"))
    for name in sorted(bad):
        shown = name if name.isprintable() else ascii(name)[1:-1]
        write_bytes(folder / shown, _content(files, name))
        writer.writerow((shown, bad[name]))
    write_text(folder / "reasons.csv", reasons.getvalue())
    log.warning("%d files are left out: kept in %s with reasons.csv", len(bad), folder)
    return folder


def _content(files: Source, name: str) -> bytes:
    try:
        return files.read(name)
    except OSError:
        return b""


@contextmanager
def _replacement(destination: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `destination` when nothing goes wrong."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}."))
    try:
        fresh, old = scratch / "fresh", scratch / "old"
        fresh.mkdir()
        yield fresh
        if destination.exists():
            destination.rename(old)
        try:
            fresh.rename(destination)
        except OSError:
            if old.exists():
                old.rename(destination)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
