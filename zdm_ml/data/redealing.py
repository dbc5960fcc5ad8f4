"""Redealing: the newest data version once more, its castings on other sides of the split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from zdm_ml.data.assignment import make_entries, recognise
from zdm_ml.data.checkout import checkout_data, place
from zdm_ml.data.layout import image_paths
from zdm_ml.data.listing import Entry, listing_text
from zdm_ml.data.manifest import Row, Split
from zdm_ml.data.publication import newest, publish_version, workshop
from zdm_ml.data.sides import deal, remembered_sides
from zdm_ml.data.versions import DataVersion
from zdm_ml.errors import DataError
from zdm_ml.params import Params
from zdm_ml.pipeline.workspace import add_worktree
from zdm_ml.settings import Settings


@dataclass(frozen=True)
class OpenVersion:
    """The newest data version; `listed` is its castings list, its images lie in `folder`."""

    before: DataVersion
    listed: Sequence[Entry]
    settings: Settings
    params: Params
    work: Path
    progress: Callable[[int, int], None] | None

    @property
    def folder(self) -> Path:
        """Return where the images lie."""
        return self.work / "castings"

    @cached_property
    def rows(self) -> Sequence[Row]:
        """Recognise the castings of all images."""
        known, paths = _named(self.listed), image_paths(self.folder)
        return recognise(self.folder, paths, known, self.listed, self.params, self.progress)

    def publish(self, sides: Mapping[str, Split], made_by: str) -> DataVersion:
        """Make a data version of the same images in which castings have the given sides.

        The others keep theirs. Raises `DataError` when too few castings are left for a split.
        """
        known = _named(self.listed)
        entries = [
            replace(entry, side=sides.get(entry.part, entry.side))
            for entry in make_entries(self.rows, self.folder, known, {}, self.listed, self.params)
        ]
        deal(self.rows, remembered_sides(entries), self.params.split, self.params.seed)
        version, folder, _ = publish_version(self.settings, self.work, entries, made_by=made_by)
        place(self.settings, folder, listing_text(entries))
        return version


@contextmanager
def newest_opened(
    settings: Settings, params: Params, progress: Callable[[int, int], None] | None = None
) -> Iterator[OpenVersion]:
    """Yield the newest data version while nobody else makes one; none at all is a `DataError`."""
    with workshop(settings) as work:
        before, listed = newest(settings)
        if before is None:
            raise DataError("no data version yet", hint="`zdm data import` makes the first")
        tree = work / "before"
        add_worktree(settings, tree)
        checkout_data(settings, tree, before.commit)
        opened = OpenVersion(before, listed, settings, params, work, progress)
        (tree / "data" / "castings").rename(opened.folder)
        yield opened


def _named(listed: Sequence[Entry]) -> dict[str, str]:
    return {entry.path: entry.part for entry in listed if entry.known}
