"""Audit: what the images of a dataset folder are, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from zdm_ml.data.audit_figures import audit_figures
from zdm_ml.data.inspection import Inspection, inspect_castings
from zdm_ml.data.issues import UNDECODABLE, has_issue
from zdm_ml.data.layout import CLASS_FOLDERS, HINT, Progress
from zdm_ml.data.lighting import lighting_clusters
from zdm_ml.data.manifest import Row
from zdm_ml.data.near_duplicates import near_duplicates
from zdm_ml.errors import DataError
from zdm_ml.params import AuditParams


@dataclass(frozen=True)
class Audit:
    """The rows, with lighting, sorted by path, and the figures; `inspection` is behind both."""

    folder: Path
    rows: list[Row]
    report: dict[str, Any]
    inspection: Inspection


def audit_images(
    folder: Path,
    files: Mapping[str, str],
    params: AuditParams,
    *,
    known: Mapping[str, str] = {},
    remembered: Mapping[str, str] = {},
    warnings: list[str] | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Audit the images `files` (manifest path -> split/class/name) under `folder`.

    `known` gives the part of a manifest path, `remembered` that of a sha256; `warnings` are passed
    on to the report. Raises `DataError` when a class has no image or none that decodes.
    """
    _check_classes(files.values(), str(folder))
    inspection = inspect_castings(
        folder, files, params, known=known, remembered=remembered, progress=progress
    )
    usable = [row for row in inspection.rows if not has_issue(row, UNDECODABLE)]
    _check_classes((files[row.path] for row in usable), f"{folder} without what does not decode")
    features = inspection.features
    # The order of the paths, not of the mapping, decides the seeded clusters.
    paths = [row.path for row in usable]
    light = dict(
        zip(paths, lighting_clusters(np.stack([features[path] for path in paths])), strict=True)
    )
    rows = [replace(row, lighting=light.get(row.path, "")) for row in inspection.rows]
    alike = near_duplicates(folder, rows, features)
    report = audit_figures(rows, features, alike, inspection, warnings or [])
    return Audit(folder, rows, report, inspection)


def _check_classes(targets: Iterable[str], source: str) -> None:
    found = {target.split("/")[1] for target in targets}
    if not found:
        raise DataError(f"{source} holds no castings", hint=HINT)
    for class_folder, label in CLASS_FOLDERS.items():
        if class_folder not in found:
            raise DataError(
                f"{source} has one class only: no {label} images (folder {class_folder})",
                hint=HINT,
            )
