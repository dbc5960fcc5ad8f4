"""The stages: files in, files out, on the paths that dvc.yaml names."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from zdm_ml.data.integrity import MEMORY_FILE, verify
from zdm_ml.data.listing import read_listing
from zdm_ml.data.manifest import Row, read_manifest, write_manifest
from zdm_ml.errors import PipelineError
from zdm_ml.files import write_json, write_text
from zdm_ml.params import Params, load_params
from zdm_ml.pipeline.dvcfile import read_pipeline
from zdm_ml.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """Where a stage runs: the checkout or workspace at `settings.root`.

    `recipe` and `seed` take the place of params.yaml's `train.recipe` and `seed`.
    """

    settings: Settings
    recipe: str | None = None
    seed: int | None = None

    @property
    def root(self) -> Path:
        """The folder that holds dvc.yaml."""
        return self.settings.root

    @cached_property
    def params(self) -> Params:
        """The checked values of params.yaml."""
        params = load_params(self.root / "params.yaml", recipe=self.recipe)
        if self.seed is None:
            return params
        return replace(params, seed=self.seed, raw={**params.raw, "seed": self.seed})

    @cached_property
    def paths(self) -> dict[str, Path]:
        """The pipeline's paths, absolute."""
        return {key: self.root / path for key, path in read_pipeline(self.root).paths.items()}

    def rows(self, *splits: str) -> list[Row]:
        """Return the manifest's rows on these sides of the split."""
        rows = [row for row in read_manifest(self.paths["manifest"]) if row.split in splits]
        if not rows:
            raise PipelineError(f"the manifest has no rows in {', '.join(splits)}")
        return rows

    def verified_castings(self) -> Path:
        """Return the castings folder once every image in it is what the castings list says.

        Raises `DataError` that names the others.
        """
        folder = self.paths["castings"]
        verify(folder, read_listing(self.paths["castings_list"]), memory=self.root / MEMORY_FILE)
        return folder

    def images(self, rows: Sequence[Row]) -> list[Path]:
        """Return the image files of rows."""
        return [self.paths["castings"] / row.path for row in rows]


def audit(context: Context, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Inspect every image; write the manifest, the audit's figures and its page.

    Castings keep the ids of the data version's castings list, whatever they look like.
    """
    from zdm_ml.data.audit import audit_images
    from zdm_ml.data.audit_page import write_page
    from zdm_ml.data.known_parts import known_parts
    from zdm_ml.data.layout import check_complete, count_images, image_paths

    folder, params = context.verified_castings(), context.params.audit
    entries = read_listing(context.paths["castings_list"])
    files = {path: path for path in image_paths(folder)}
    check_complete(count_images(files), str(folder))
    named = known_parts(files, {}, params.part_pattern)
    found = audit_images(
        folder,
        files,
        params,
        known=named.parts | {entry.path: entry.part for entry in entries if entry.known},
        remembered={entry.sha256: entry.part for entry in entries if not entry.known},
        warnings=named.warnings,
        progress=progress,
    )
    kinds = {entry.path: entry.kinds for entry in entries}
    rows = [replace(row, kinds=kinds.get(row.path, "")) for row in found.rows]
    write_manifest(context.paths["audit"], rows)
    write_json(context.paths["audit_report"], found.report)
    write_page(context.paths["audit_page"], found)
    return found.report


def split(context: Context) -> dict[str, Any]:
    """Put every image on one side of the split; castings keep the side that their list names."""
    from zdm_ml.data.splits import remembered_sides, split_rows

    rows = read_manifest(context.paths["audit"])
    remembered = remembered_sides(read_listing(context.paths["castings_list"]))
    params = context.params
    assigned, report = split_rows(rows, params.split, params.seed, remembered)
    write_manifest(context.paths["manifest"], assigned)
    write_json(context.paths["split_report"], report)
    return report


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())
