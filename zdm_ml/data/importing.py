"""Import: the castings of a zip or folder become the newest data version of this checkout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from zdm_ml.data.archive import Staged, stage_source
from zdm_ml.data.assignment import make_entries, recognise
from zdm_ml.data.checkout import place
from zdm_ml.data.layout import image_paths
from zdm_ml.data.listing import Census, count_entries, listing_text
from zdm_ml.data.publication import newest, publish_version, workshop
from zdm_ml.data.versions import DataVersion
from zdm_ml.params import Params
from zdm_ml.pipeline.commands import head_commit
from zdm_ml.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Imported:
    """What an import did; `staged` counts images and names quarantined files."""

    staged: Staged
    version: DataVersion
    changed: bool
    census: Census
    dealt: bool


def import_data(
    settings: Settings,
    source: Path,
    params: Params,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Verify the images of `source`, recognise their castings, make them the newest version.

    Nothing is visible before the branch moves, and the branch moves once the bytes are in the
    cache and the remote: a crash anywhere leaves the previous version, and a rerun goes through.
    """
    head_commit(settings.root)
    with workshop(settings) as work:
        folder = work / "castings"
        staged = stage_source(
            source,
            folder,
            quarantine=settings.home / "quarantine",
            max_pixels=params.audit.max_pixels,
            part_pattern=params.audit.part_pattern,
            progress=progress,
        )
        for warning in staged.warnings:
            logger.warning("%s", warning)
        _, before = newest(settings)
        rows = recognise(folder, image_paths(folder), staged.known, before, params, progress)
        entries = make_entries(rows, folder, staged.known, staged.kinds, before, params)
        version, folder, changed = publish_version(settings, work, entries, made_by="import")
        place(settings, folder, listing_text(entries))
    dealt = any(entry.side for entry in entries)
    return Imported(staged, version, changed, count_entries(entries), dealt)
