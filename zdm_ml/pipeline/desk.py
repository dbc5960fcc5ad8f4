"""One training alone at a desk: a folder that predicts, beside the pipeline's outs."""

from __future__ import annotations

from pathlib import Path

from zdm_ml.data.manifest import read_manifest
from zdm_ml.errors import PipelineError
from zdm_ml.files import write_json
from zdm_ml.pipeline.evaluate_stage import judged
from zdm_ml.pipeline.fitting import CROSSFIT_FILE
from zdm_ml.pipeline.reporter import Show
from zdm_ml.pipeline.stages import Context
from zdm_ml.pipeline.train_stage import DECISION_FILE, train_into
from zdm_ml.training.loop import TrainResult


def train_alone(context: Context, name: str, out: Path, show: Show) -> TrainResult:
    """Train one model into `out`: the net, `history.csv` and `decision.json` with its threshold.

    The threshold is chosen as in stage `evaluate`: on castings that were held back from the net,
    or on the scores of the nets that cross-fitting held them back from.
    """
    if not context.paths["manifest"].is_file():
        raise PipelineError(
            f"{context.paths['manifest']} is missing: no image is on a side yet",
            hint="`dvc repro split` makes it",
        )
    result = train_into(context, name, out, out / "history.csv", show)
    if context.settings.rank > 0:  # of several processes the leading one writes
        return result
    # Cross-fitting has scored what chooses the threshold.
    sides = () if (out / CROSSFIT_FILE).is_file() else ("val", "calibration")
    rows = [row for row in read_manifest(context.paths["manifest"]) if row.split in sides]
    calibration, _ = judged(context, out, rows)
    write_json(out / DECISION_FILE, calibration.as_decision())
    return result
