"""Known castings: what a source says itself, in parts.csv or in its file names.

parts.csv has the columns `path` and `part`; a column `kinds` may name the kinds of defect.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from zdm_ml.errors import ConfigError, DataError

PARTS_FILE = "parts.csv"
COLUMNS = ("path", "part")
SHOWN = 3


@dataclass(frozen=True)
class Known:
    """What a source says of its images, by manifest path.

    parts: the casting that an image shows, where it is named.
    kinds: the kinds of defect, divided by `;`, of each image in a parts.csv that has the column;
        empty where its cell says that there is none.
    warnings: plain sentences on what could not be used.
    """

    parts: dict[str, str]
    kinds: dict[str, str]
    warnings: list[str]


def read_parts_files(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """Return the text of each parts.csv under `folder` by its place."""
    lists = {}
    for place in parts_file_places(files):
        try:
            lists[place] = (folder / place).read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{folder / place} cannot be read: {error}", hint="save it as CSV in UTF-8"
            ) from error
    return lists


def parts_file_places(files: Iterable[str]) -> list[str]:
    """Return where a parts.csv may lie for these manifest paths, the root first."""
    bases = {PurePosixPath(*PurePosixPath(path).parts[:-3]) for path in files}
    return sorted({PARTS_FILE, *((base / PARTS_FILE).as_posix() for base in bases)}, key=_depth)


def known_parts(files: Mapping[str, str], lists: Mapping[str, str], pattern: str | None) -> Known:
    """Return what the source of `files` says of them.

    `files` maps manifest paths to `split/class/name`, `lists` the path of each parts.csv to its
    text. A parts.csv beside train/ and test/ wins over the root's, both win over `pattern`
    (`audit.part_pattern`). Raises `DataError` for a damaged parts.csv, `ConfigError` for a bad
    pattern.
    """
    parts, warnings = _from_names(files, pattern)
    kinds: dict[str, str] = {}
    for place, named, strangers in _located(files, lists):
        parts |= {path: line.part for path, line in named.items()}
        kinds |= {path: line.kinds for path, line in named.items() if line.kinds is not None}
        if strangers:
            warnings.append(
                f"{place}: {len(strangers)} of its paths are no images here, such as "
                + ", ".join(strangers[:SHOWN])
            )
    return Known(parts, kinds, warnings)


def _located(
    files: Mapping[str, str], lists: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, _Line], list[str]]]:
    """Yield each parts.csv, the root's first: its lines by manifest path, and its stray paths."""
    targets: dict[str, list[str]] = {}
    for path, target in files.items():
        targets.setdefault(target, []).append(path)
    for place in sorted(lists, key=_depth):
        base = PurePosixPath(place).parent
        found: dict[str, _Line] = {}
        strangers = []
        for named, line in _parse(lists[place], place).items():
            path = (base / named).as_posix()
            if path in files:
                found[path] = line
            elif base == PurePosixPath() and len(targets.get(named, [])) == 1:
                found[targets[named][0]] = line
            else:
                strangers.append(named)
        yield place, found, strangers


def _depth(place: str) -> tuple[int, str]:
    return place.count("/"), place


def _from_names(files: Mapping[str, str], pattern: str | None) -> tuple[dict[str, str], list[str]]:
    if pattern is None:
        return {}, []
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise _bad_pattern(f"{pattern!r} is no regular expression: {error}") from error
    if not expression.groups:
        raise _bad_pattern(f"{pattern!r} has no group (...) around the serial number")
    found = {path: expression.search(path.rsplit("/", 1)[-1]) for path in files}
    known = {path: match[1] for path, match in found.items() if match and match[1]}
    if len(known) == len(files):
        return known, []
    others = [path for path in files if path not in known]
    return known, [
        f"audit.part_pattern fits {len(known)} of {len(files)} file names, not "
        + ", ".join(others[:SHOWN])
    ]


def _bad_pattern(problem: str) -> ConfigError:
    return ConfigError(
        f"params.yaml: audit.part_pattern: {problem}",
        hint='correct it, for example "^(SN[0-9]+)_", or set it to null',
    )


@dataclass(frozen=True)
class _Line:
    """What parts.csv says of an image; `kinds` is None where it has no such column."""

    part: str
    kinds: str | None


def _parse(text: str, place: str) -> dict[str, _Line]:
    """Return the line of each path; comma or semicolon, whatever the header line holds."""
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    header = [name.strip() for name in reader.fieldnames or ()]
    if not set(COLUMNS) <= set(header):
        raise DataError(
            f"{place} has columns {header}, needs {' and '.join(COLUMNS)}",
            hint="first line `path,part`, then one line per image",
        )
    reader.fieldnames = header
    lines: dict[str, _Line] = {}
    for record in _records(reader, place):
        path = (record["path"] or "").strip().replace("\\", "/").removeprefix("./")
        part = (record["part"] or "").strip()
        if not path or not part:
            raise DataError(
                f"{place}, line {reader.line_num}: path {path!r}, part {part!r}",
                hint="fill in both, or delete the line to have the casting recognised",
            )
        if None in record:
            raise DataError(
                f"{place}, line {reader.line_num}: more cells than the first line",
                hint="put several kinds between quotes, or divide them by |",
            )
        line = _Line(part, _kinds(record["kinds"] or "") if "kinds" in header else None)
        if line.kinds and not line.kinds.isprintable():
            raise DataError(f"{place}, line {reader.line_num}: kinds {line.kinds!r} are no text")
        before = lines.setdefault(path, line)
        if before.part != part:
            raise DataError(
                f"{place}, line {reader.line_num}: {path} is part {part!r} and {before.part!r}",
                hint="keep the right one of the two lines",
            )
        if before.kinds and line.kinds:
            lines[path] = replace(line, kinds=_kinds(f"{before.kinds};{line.kinds}"))
    return lines


def _kinds(text: str) -> str:
    """Return kinds each once, sorted, divided by `;`; a list between bars or commas is one too."""
    kinds = {kind.strip() for kind in re.split(r"[;,|]", text)}
    return ";".join(sorted(kinds - {""}))


def _records(reader: csv.DictReader[str], place: str) -> Iterator[dict[str, str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(
            f"{place}, line {reader.line_num}: {error}", hint="save it as CSV in UTF-8"
        ) from error
