"""Intake: images from the inbox join the newest data version, and leave the inbox afterwards."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zdm_ml.data.archive import keep_aside
from zdm_ml.data.assignment import make_entries, recognise
from zdm_ml.data.checkout import checkout_data
from zdm_ml.data.inbox import SETTLE_SECONDS, Inbox
from zdm_ml.data.known_parts import Known, known_parts
from zdm_ml.data.layout import image_paths
from zdm_ml.data.listing import Entry
from zdm_ml.data.manifest import CLASSES
from zdm_ml.data.publication import newest, publish_version, workshop
from zdm_ml.data.sorting import Sorting, inbox_label, review_conflicts, sort_arrivals
from zdm_ml.data.sources import FolderSource, Limits
from zdm_ml.data.uptake import is_pending, tell
from zdm_ml.data.versions import INTAKE, DataVersion
from zdm_ml.params import Params
from zdm_ml.pipeline.workspace import add_worktree
from zdm_ml.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Intake:
    """What an intake did; `version` is the newest one afterwards, None before the first.

    `pending`: an intake made that version and no retraining has taken it up. `announce`: it is
    time to tell whoever waits for new data.
    """

    sorting: Sorting
    version: DataVersion | None
    imported: bool
    pending: bool
    announce: bool
    reason: str

    @property
    def per_class(self) -> Mapping[str, int]:
        """The number of images that were added, by label."""
        added = Counter(inbox_label(path) for path in self.sorting.fresh)
        return {label: added[label] for label in CLASSES}


def take_in(
    settings: Settings,
    params: Params,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> Intake:
    """Make one new data version of what has arrived whole; nothing new makes nothing.

    Files leave the inbox once the version is pushed and the branch has moved: after a crash they
    are taken again or found to be there already. Label conflicts are kept under `review/`, bad
    files under `quarantine/` of the state folder, with reasons.csv.
    """
    inbox = Inbox(settings.inbox)
    with workshop(settings) as work:
        looked, unsettled = inbox.stable(settle_seconds)
        before, listed = newest(settings)
        if before is None:
            return _without_version([*looked, *unsettled])
        arrived = work / "arrived"
        arrived.mkdir()
        sorting = sort_arrivals(inbox, looked, arrived, listed, max_pixels=params.audit.max_pixels)
        sorting.waiting += unsettled
        version = before
        if sorting.fresh:
            growth = Growth(settings, params, work, before, listed)
            version = growth.version_with(inbox, sorting, progress)
        _keep(settings, arrived, sorting)
        inbox.remove(looked, sorting.settled)
    imported = version.commit != before.commit
    pending = is_pending(settings, version)
    announce = pending and tell(settings, version)
    return Intake(sorting, version, imported, pending, announce, _reason(sorting, pending))


@dataclass(frozen=True)
class Growth:
    """The newest data version and the folder in which the next one is made."""

    settings: Settings
    params: Params
    work: Path
    before: DataVersion
    listed: Sequence[Entry]

    def version_with(
        self,
        inbox: Inbox,
        sorting: Sorting,
        progress: Callable[[int, int], None] | None,
    ) -> DataVersion:
        """Return the version that the fresh images make, or the old one if all conflict."""
        folder = self._folder(sorting)
        fresh = known_parts(sorting.fresh, inbox.parts_list(), self.params.audit.part_pattern)
        for remark in fresh.warnings:
            logger.info("%s", remark)
        known = self._known(fresh, sorting)
        kinds = {sorting.fresh[path]: found for path, found in fresh.kinds.items()}
        rows = recognise(folder, image_paths(folder), known, self.listed, self.params, progress)
        sent = review_conflicts(sorting, rows)
        for path in sent:
            (folder / path).unlink()
        if not sorting.fresh:
            return self.before
        rows = [row for row in rows if row.path not in sent]
        entries = make_entries(rows, folder, known, kinds, self.listed, self.params)
        version, _, _ = publish_version(self.settings, self.work, entries, made_by=INTAKE)
        return version

    def _folder(self, sorting: Sorting) -> Path:
        """Return the images of the old version with the fresh ones among them."""
        tree, folder = self.work / "before", self.work / "castings"
        add_worktree(self.settings, tree)
        checkout_data(self.settings, tree, self.before.commit)
        (tree / "data" / "castings").rename(folder)
        for source, target in sorting.fresh.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.work / "arrived" / source, folder / target)
        return folder

    def _known(self, fresh: Known, sorting: Sorting) -> dict[str, str]:
        """Return the parts that names give: of the old images, and of the fresh ones."""
        old = {entry.path: entry.path for entry in self.listed}
        return {
            **known_parts(old, {}, self.params.audit.part_pattern).parts,
            **{entry.path: entry.part for entry in self.listed if entry.known},
            **{sorting.fresh[path]: part for path, part in fresh.parts.items()},
        }


def _without_version(waiting: Sequence[str]) -> Intake:
    reason = "nothing new in the inbox"
    if waiting:
        reason = (
            f"no data version yet: {len(waiting)} images wait until `zdm data import` made the "
            "first, with train/ and test/ of both classes"
        )
    return Intake(Sorting(waiting=list(waiting)), None, False, False, False, reason)


def _keep(settings: Settings, arrived: Path, sorting: Sorting) -> None:
    files = FolderSource(arrived, Limits())
    for name, left_out in (("quarantine", sorting.bad), ("review", sorting.conflicts)):
        if left_out:
            keep_aside(files, left_out, settings.home / name)


def _reason(sorting: Sorting, pending: bool) -> str:
    counts = {
        "added": sorting.fresh,
        "already there": sorting.duplicates,
        "quarantined": sorting.bad,
        "with conflicting labels, to be reviewed": sorting.conflicts,
        "waiting": sorting.waiting,
    }
    told = [f"{len(files)} {what}" for what, files in counts.items() if files]
    if pending and not sorting.fresh:
        told.append("the newest version waits for a retraining")
    return ", ".join(told) or "nothing new in the inbox"
