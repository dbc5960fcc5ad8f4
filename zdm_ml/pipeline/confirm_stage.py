"""The stage `confirm`: the two leading models again with other seeds, to tell merit from luck."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from zdm_ml.data.manifest import read_manifest
from zdm_ml.errors import TrainingError
from zdm_ml.evaluation.figures import decision_figures
from zdm_ml.evaluation.lead import lead_of
from zdm_ml.files import write_json
from zdm_ml.pipeline.compare_stages import candidates_of, evaluated, policy_of
from zdm_ml.pipeline.evaluate_stage import HELD_OUT, judged
from zdm_ml.pipeline.reporter import Show
from zdm_ml.pipeline.stages import Context
from zdm_ml.pipeline.train_stage import train_into

logger = logging.getLogger(__name__)


def confirm(context: Context, show: Show) -> dict[str, Any]:
    """Write the expected costs of the leaders by seed, the evaluated training first.

    With one seed nothing is trained and `costs` is empty. The nets of other seeds are not kept; one
    that cannot be trained is left out, with a warning.
    """
    seeds, figures = context.params.confirm.seeds, evaluated(context)
    lead = lead_of(candidates_of(figures), policy_of(context.params), {}) if seeds > 1 else None
    costs: dict[str, list[float]] = {}
    if lead is not None and lead.second is not None:
        for name in (lead.reference.model_name, lead.second.model_name):
            costs[name] = [figures[name]["cost"]]
            for seed in range(context.params.seed + 1, context.params.seed + seeds):
                try:
                    costs[name].append(cost_with_seed(context, name, seed, show))
                except TrainingError as error:
                    logger.warning("%s: left out seed %d: %s", name, seed, error)
    report = {"seeds": seeds, "costs": costs}
    write_json(context.paths["confirm"], report)
    return report


def cost_with_seed(context: Context, name: str, seed: int, show: Show) -> float:
    """Train a model with another seed and return its expected cost on the same test castings.

    Nothing of it is recorded as a training of the run.
    """
    home = context.settings.home
    home.mkdir(parents=True, exist_ok=True)
    alone = Context(replace(context.settings, run_id=None), context.recipe, seed)
    logger.info("%s: trained again with seed %d", name, seed)
    with tempfile.TemporaryDirectory(dir=home, prefix=".confirm-") as temporary:
        folder = Path(temporary) / name
        train_into(alone, name, folder, Path(temporary) / "history.csv", show)
        rows = [row for row in read_manifest(alone.paths["manifest"]) if row.split in HELD_OUT]
        calibration, scores = judged(alone, folder, rows)
    tested = [at for at, row in enumerate(rows) if row.split == "test"]
    found = decision_figures(
        scores[tested], [rows[at] for at in tested], calibration.verdicts, alone.params.cost
    )
    return float(found["cost"])
