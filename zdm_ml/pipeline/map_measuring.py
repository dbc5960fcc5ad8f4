"""A model's heat maps in the stage `evaluate`: measured, licensed or not, and drawn for people."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from zdm_ml.data.manifest import Row
from zdm_ml.data.synthetic import known_defects
from zdm_ml.evaluation.map_licence import MapLicence, decide, not_measured
from zdm_ml.evaluation.map_quality import MODEL, compare
from zdm_ml.evaluation.overlay import Finding, overlay
from zdm_ml.evaluation.saliency import Grey, heat_map
from zdm_ml.evaluation.sampling import spread
from zdm_ml.evaluation.scoring import decode_row
from zdm_ml.evaluation.verdicts import Verdicts
from zdm_ml.files import write_bytes, write_json
from zdm_ml.models.net import LoadedNet
from zdm_ml.params import Params

MAPS_FOLDER = "maps"
INDEX_FILE = "index.json"
LARGEST_SIDE = 512
"""Larger images are shrunk before pixels are removed: many copies of each are scored."""


@dataclass(frozen=True)
class Judge:
    """A net with its verdicts, and where the images lie that it is measured on."""

    loaded: LoadedNet
    verdicts: Verdicts
    params: Params
    castings: Path

    def image(self, row: Row) -> Grey:
        """Return a row's image, grey uint8 [H, W]."""
        return decode_row(self.castings, row, max_pixels=self.params.audit.max_pixels)

    def some(self, rows: Sequence[Row], limit: int) -> list[Row]:
        """Return at most `limit` defects, castings in turn."""
        return spread([row for row in rows if row.target], limit, self.params.seed)


def measure_maps(
    judge: Judge,
    rows: Sequence[Row],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Return what saliency.json says: figures of the net's heat maps beside those of blind ones.

    Deletion and insertion are measured on defects among the test images `rows`, the rest on
    synthetic castings, of which the masks are known.
    """
    wanted, loaded = judge.params.saliency, judge.loaded
    common = {"model_digest": loaded.spec.digest, "floor": wanted.floor}
    if not wanted.castings:
        return {**common, **_said(not_measured("saliency.castings is 0")), "castings": 0}
    photographs = known_defects(wanted.castings, judge.params.seed)
    images = [_shrunk(judge.image(row)) for row in judge.some(rows, wanted.images)]
    confidence = judge.params.evaluate.confidence
    found = compare(
        loaded,
        photographs,
        images,
        wanted,
        confidence=confidence,
        seed=judge.params.seed,
        progress=progress,
    )
    own = found.pop(MODEL)
    scores = loaded.scores([photo.image for photo in photographs])
    return {
        **common,
        **_said(decide(own, found, len(photographs), wanted.floor, confidence)),
        **own,
        "baselines": found,
        "castings": len(photographs),
        # A net that has only seen photographs may take rendered castings for good ones.
        "judged_defect": int((scores >= judge.verdicts.defect_from).sum()),
        "images": len(images),
        "confidence": confidence,
    }


def draw_maps(
    judge: Judge, rows: Sequence[Row], score_of: dict[str, float], licence: MapLicence, folder: Path
) -> None:
    """Write pictures of a few defects among `rows` with their heat maps, and index.json.

    Without a licence each carries a mark, and the index says so. `folder` keeps nothing else.
    """
    shutil.rmtree(folder, ignore_errors=True)
    maps = []
    for row in judge.some(rows, judge.params.saliency.maps):
        finding = Finding(judge.loaded.spec.model_name, score_of[row.path], judge.verdicts)
        image = judge.image(row)
        name = f"{Path(row.path).stem}-{row.sha256[:8]}.png"
        write_bytes(folder / name, overlay(image, heat_map(judge.loaded, image), finding, licence))
        maps.append(
            {
                "file": name,
                "path": row.path,
                "part": row.part,
                "score": finding.score,
                "verdict": finding.verdict,
            }
        )
    write_json(folder / INDEX_FILE, {**_said(licence), "maps": maps})


def _said(licence: MapLicence) -> dict[str, Any]:
    return {"licensed": licence.licensed, "verdict": licence.verdict, "reason": licence.reason}


def _shrunk(image: Grey) -> Grey:
    share = min(1.0, LARGEST_SIDE / max(image.shape))
    size = (max(1, round(image.shape[1] * share)), max(1, round(image.shape[0] * share)))
    if share == 1:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
