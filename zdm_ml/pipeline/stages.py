"""The stages: files in, files out, on the paths that dvc.yaml names."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from zdm_ml.data.manifest import Row, read_manifest, write_manifest
from zdm_ml.errors import PipelineError
from zdm_ml.files import write_json, write_text
from zdm_ml.params import Params, load_params
from zdm_ml.pipeline.dvcfile import read_pipeline
from zdm_ml.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """Where a stage runs: the checkout or workspace at `settings.root`."""

    settings: Settings

    @property
    def root(self) -> Path:
        """The folder that holds dvc.yaml."""
        return self.settings.root

    @cached_property
    def params(self) -> Params:
        """The checked values of params.yaml."""
        return load_params(self.root / "params.yaml")

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

    def images(self, rows: Sequence[Row]) -> list[Path]:
        """Return the image files of rows."""
        return [self.paths["castings"] / row.path for row in rows]


def audit(context: Context, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Decode every image and write the manifest and the audit's figures."""
    from zdm_ml.data.audit import audit_images

    rows, report = audit_images(context.paths["castings"], context.params.audit, progress=progress)
    write_manifest(context.paths["audit"], rows)
    write_json(context.paths["audit_report"], report)
    return report


def split(context: Context) -> dict[str, Any]:
    """Put every image on one side of the split."""
    from zdm_ml.data.splits import split_rows

    rows = read_manifest(context.paths["audit"])
    assigned, report = split_rows(rows, context.params.split, context.params.seed)
    write_manifest(context.paths["manifest"], assigned)
    write_json(context.paths["split_report"], report)
    return report


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, buffer.getvalue())
