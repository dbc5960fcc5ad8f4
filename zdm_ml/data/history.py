"""History: what each data version holds, what changed, and which models were trained on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zdm_ml.data.listing import Census, Entry, count_entries, parse_listing
from zdm_ml.data.versions import LISTING, DataVersion, entries_of, read_blobs, resolve, versions
from zdm_ml.errors import DataError


@dataclass(frozen=True)
class Difference:
    """What one castings list has over another; images are compared by their bytes.

    A renamed or moved image is neither added nor removed. `relabelled` are paths in the second
    list whose bytes had the other label; `sides_changed` are castings, and must be none.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[str, ...]
    castings_added: tuple[str, ...]
    castings_removed: tuple[str, ...]
    sides_changed: tuple[str, ...]


@dataclass(frozen=True)
class LogEntry:
    """One data version; without a castings list its counts are None.

    `models` are the registered versions that were trained on it, None where MLflow is silent.
    """

    version: DataVersion
    census: Census | None
    added: int | None
    removed: int | None
    models: Sequence[str] | None


def compare(before: Iterable[Entry], after: Iterable[Entry]) -> Difference:
    """Compare two castings lists."""
    old, new = list(before), list(after)
    old_labels, new_labels = _labels(old), _labels(new)
    old_sides = {entry.sha256: entry.side for entry in old}
    old_parts, new_parts = ({entry.part for entry in entries} for entries in (old, new))
    moved = {
        entry.part
        for entry in new
        if old_sides.get(entry.sha256) and old_sides[entry.sha256] != entry.side
    }
    return Difference(
        added=_paths(entry for entry in new if entry.sha256 not in old_labels),
        removed=_paths(entry for entry in old if entry.sha256 not in new_labels),
        relabelled=_paths(
            entry for entry in new if entry.label not in old_labels.get(entry.sha256, {entry.label})
        ),
        castings_added=tuple(sorted(new_parts - old_parts)),
        castings_removed=tuple(sorted(old_parts - new_parts)),
        sides_changed=tuple(sorted(moved)),
    )


def compare_versions(root: Path, before: str, after: str) -> Difference:
    """Compare two data versions, each given by commit, DVC hash or `latest`."""
    lists = []
    for wanted in (before, after):
        version = resolve(root, wanted)
        entries = entries_of(root, version.commit)
        if entries is None:
            raise DataError(
                f"data version {version.commit[:12]} has no castings list",
                hint="import its images again",
            )
        lists.append(entries)
    return compare(*lists)


def read_log(root: Path, trained: Mapping[str, Sequence[str]] | None) -> list[LogEntry]:
    """Return every data version, the newest first; `trained` maps DVC hashes to model versions."""
    known = versions(root)
    texts = read_blobs(root, [f"{version.commit}:{LISTING}" for version in known])
    lists = [
        None if text is None else parse_listing(text, f"{version.commit[:12]}:{LISTING}")
        for version, text in zip(known, texts, strict=True)
    ]
    entries = []
    for version, listed, before in zip(known, lists, [*lists[1:], []], strict=True):
        change = None if listed is None or before is None else compare(before, listed)
        entries.append(
            LogEntry(
                version=version,
                census=None if listed is None else count_entries(listed),
                added=None if change is None else len(change.added),
                removed=None if change is None else len(change.removed),
                models=None if trained is None else trained.get(version.md5, ()),
            )
        )
    return entries


def _labels(entries: Iterable[Entry]) -> dict[str, set[str]]:
    labels: dict[str, set[str]] = {}
    for entry in entries:
        labels.setdefault(entry.sha256, set()).add(entry.label)
    return labels


def _paths(entries: Iterable[Entry]) -> tuple[str, ...]:
    return tuple(sorted(entry.path for entry in entries))
