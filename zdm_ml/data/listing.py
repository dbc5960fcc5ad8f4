"""The castings list: what travels with a data version beside its images.

One line per image: its bytes' identity, the casting that it shows and the side of the split that
the casting keeps from version to version.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_args

from zdm_ml.data.layout import CLASS_FOLDERS
from zdm_ml.data.manifest import CLASSES, Label, Split
from zdm_ml.errors import DataError
from zdm_ml.files import write_text


@dataclass(frozen=True, slots=True)
class Entry:
    """One image; `path` is relative to the castings folder, an empty `side` is not dealt yet.

    `known` tells a part that the source named (parts.csv, serial number) from a recognised one,
    `kinds` are the kinds of defect, divided by `;`, where the source named any.
    """

    path: str
    sha256: str
    size: int
    part: str
    known: bool
    side: Split
    kinds: str = ""

    @property
    def label(self) -> Label:
        """The class whose folder holds the image."""
        return CLASS_FOLDERS[self.path.split("/")[-2]]


@dataclass(frozen=True)
class Census:
    """Images per class, and castings per class; one that carries both labels counts as mixed."""

    images: Mapping[str, int]
    castings: Mapping[str, int]


def count_entries(entries: Iterable[Entry]) -> Census:
    """Count images and castings."""
    images: Counter[str] = Counter()
    labels: dict[str, set[str]] = {}
    for entry in entries:
        images[entry.label] += 1
        labels.setdefault(entry.part, set()).add(entry.label)
    castings = Counter(min(found) if len(found) == 1 else "mixed" for found in labels.values())
    return Census(
        {label: images[label] for label in CLASSES},
        {label: castings[label] for label in (*CLASSES, "mixed")},
    )


COLUMNS = tuple(field.name for field in fields(Entry))
WITHOUT_KINDS = COLUMNS[:-1]
"""The columns where no kind of defect is known."""


def write_listing(path: Path, entries: Iterable[Entry]) -> None:
    """Write the entries as CSV, sorted by path."""
    write_text(path, listing_text(entries))


def listing_text(entries: Iterable[Entry]) -> str:
    """Return the CSV text of entries, sorted by path."""
    listed = sorted(entries, key=lambda entry: entry.path)
    columns = COLUMNS if any(entry.kinds for entry in listed) else WITHOUT_KINDS
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for entry in listed:
        writer.writerow({**asdict(entry), "known": int(entry.known)})
    return buffer.getvalue()


def read_listing(path: Path) -> list[Entry]:
    """Return the entries of a castings list; a missing or damaged one raises `DataError`."""
    if not path.is_file():
        raise DataError(
            f"castings list {path} is missing",
            hint="`zdm data checkout` brings it back; without a data version: `zdm data import`",
        )
    return parse_listing(path.read_text(), str(path))


def parse_listing(text: str, source: str) -> list[Entry]:
    """Read a castings list from text; `source` names it in errors."""
    reader = csv.DictReader(io.StringIO(text))
    header = tuple(reader.fieldnames or ())
    if header not in (COLUMNS, WITHOUT_KINDS):
        raise DataError(
            f"castings list {source} has columns {header}, expected {WITHOUT_KINDS}",
            hint="`zdm data checkout` brings it back",
        )
    return [_entry(source, line, record) for line, record in enumerate(reader, start=2)]


def _entry(source: str, line: int, record: dict[str, str]) -> Entry:
    side = record["side"]
    try:
        if None in record.values():
            raise ValueError("a cell is missing")
        if side not in get_args(Split):
            raise ValueError(f"side {side!r}")
        return Entry(
            path=record["path"],
            sha256=record["sha256"],
            size=int(record["size"]),
            part=record["part"],
            known={"0": False, "1": True}[record["known"]],
            side=side,  # type: ignore[arg-type]  # checked above
            kinds=record.get("kinds", ""),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"castings list {source}, line {line}: {error}",
            hint="`zdm data checkout` brings it back",
        ) from error
