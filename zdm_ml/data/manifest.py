"""The manifest: one row per image, the schema between all stages."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

from zdm_ml.errors import DataError
from zdm_ml.files import write_text

Label = Literal["ok", "defect"]
Split = Literal["train", "val", "calibration", "test", "lockbox", ""]

CLASSES: tuple[Label, Label] = ("ok", "defect")
"""Class names by target index: the positive class, `defect`, is 1."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image; `path` is relative to the castings folder, with forward slashes.

    `part` identifies the physical casting, `mean_grey` is in grey levels (0-255), `fold` is -1
    outside cross-validation, an empty `split` means left out, `lockbox` kept for the last scoring,
    `issues` is a `;`-separated list.
    `nearest` is the path of the most similar other image (empty where none was found),
    `similarity` to it and `confidence` in `part` lie in [0, 1]; `identity` says how `part` was
    found: known, remembered, ring, outline or alone. `kin` names the castings that may be one with
    this one, photographed anew (empty: none): they are kept on one side of a split. `kinds` of
    defect are divided by `;`, empty where the source names none.
    """

    path: str
    sha256: str
    label: Label
    part: str
    shipped_split: str
    split: Split
    fold: int
    width: int
    height: int
    mean_grey: float
    lighting: str
    issues: str
    nearest: str = ""
    similarity: float = 0.0
    confidence: float = 0.0
    identity: str = "alone"
    kin: str = ""
    kinds: str = ""

    @property
    def family(self) -> str:
        """Return what is kept together: the casting, or all that may be one with it."""
        return self.kin or self.part

    @property
    def target(self) -> int:
        """Return the class index of the label."""
        return CLASSES.index(self.label)

    def assigned(self, split: Split) -> Row:
        """Return the row on another side of the split."""
        return replace(self, split=split)


COLUMNS = tuple(field.name for field in fields(Row))
WITHOUT_KINDS = COLUMNS[:-1]
"""The columns of manifests in versions from before kinds of defect were known."""


def write_manifest(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows as CSV, sorted by path."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in sorted(rows, key=lambda row: row.path))
    write_text(path, buffer.getvalue())


def read_manifest(path: Path) -> list[Row]:
    """Return the rows of a manifest; a missing column or bad value raises `DataError`."""
    if not path.is_file():
        raise DataError(f"manifest {path} is missing", hint="run `dvc repro split`")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) not in (COLUMNS, WITHOUT_KINDS):
            raise DataError(
                f"manifest {path} has columns {reader.fieldnames}, expected {list(COLUMNS)}",
                hint="delete it and run `dvc repro split`",
            )
        return [_row(path, line, record) for line, record in enumerate(reader, start=2)]


def _row(path: Path, line: int, record: dict[str, str]) -> Row:
    label, split = record["label"], record["split"]
    if label not in get_args(Label) or split not in get_args(Split):
        raise DataError(f"manifest {path}, line {line}: label {label!r}, split {split!r}")
    try:
        if None in record.values():
            raise ValueError("a cell is missing")
        return Row(
            path=record["path"],
            sha256=record["sha256"],
            label=label,  # type: ignore[arg-type]  # checked above
            part=record["part"],
            shipped_split=record["shipped_split"],
            split=split,  # type: ignore[arg-type]  # checked above
            fold=int(record["fold"]),
            width=int(record["width"]),
            height=int(record["height"]),
            mean_grey=float(record["mean_grey"]),
            lighting=record["lighting"],
            issues=record["issues"],
            nearest=record["nearest"],
            similarity=float(record["similarity"]),
            confidence=float(record["confidence"]),
            identity=record["identity"],
            kin=record["kin"],
            kinds=record.get("kinds", ""),
        )
    except ValueError as error:
        raise DataError(f"manifest {path}, line {line}: {error}") from error
