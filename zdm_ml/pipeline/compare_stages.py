"""The stages `latency` and `select`: all models side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zdm_ml.data.images import decode_grey
from zdm_ml.errors import PipelineError
from zdm_ml.evaluation.chart import chart
from zdm_ml.evaluation.latency import measure
from zdm_ml.evaluation.leaderboard import flat_figures, leaderboard
from zdm_ml.evaluation.metrics import weighted_cost
from zdm_ml.evaluation.report import markdown
from zdm_ml.evaluation.selection import Candidate
from zdm_ml.evaluation.selection import select as choose
from zdm_ml.files import read_json, write_bytes, write_json, write_text
from zdm_ml.models.net import load_net, read_spec
from zdm_ml.pipeline.stages import Context
from zdm_ml.training.device import choose_device


def latency(
    context: Context, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Time every trained model at batch 1, one after the other."""
    params, rows = context.params, {}
    names = [name for name in params.models if (context.paths["models"] / name).is_dir()]
    if not names:
        raise PipelineError("no model was trained", hint="see the train stages' messages")
    device = choose_device(params.train.device)
    (path,) = context.images(context.rows("test")[:1])
    image = decode_grey(path, max_pixels=params.audit.max_pixels)
    for done, name in enumerate(names):
        progress(done, len(names))
        rows[name] = measure(
            load_net(context.paths["models"] / name, device), image, params.latency
        )
    write_json(context.paths["latency"], rows)
    return rows


def select(context: Context) -> tuple[dict[str, Any], str]:
    """Rank the models named in params.yaml, write the leaderboard, return selection and table."""
    params = context.params
    figures = {name: found for name in params.models if (found := _figures(context, name))}
    candidates = [
        Candidate(**{key: row[key] for key in Candidate.__dataclass_fields__})
        for row in figures.values()
    ]
    selection = choose(
        candidates,
        min_models=params.select.min_models,
        failures=_failures(context),
        requested=list(params.models),
    )
    rows = leaderboard(selection, figures)
    page = markdown(rows, selection, params.cost.overkill_weight)
    write_json(context.paths["leaderboard"], rows)
    write_text(context.paths["leaderboard_md"], page)
    write_bytes(
        context.paths["leaderboard_plot"],
        chart(rows, selection.winner, params.cost.overkill_weight),
    )
    write_json(context.paths["selection"], selection.as_dict())
    return selection.as_dict(), page


def _figures(context: Context, name: str) -> dict[str, Any] | None:
    """Return what is known of a model, or None unless its figures belong to its weights."""
    metrics_file = context.paths["evaluation"] / name / "metrics.json"
    model = context.paths["models"] / name
    if not metrics_file.is_file() or not model.is_dir():
        return None
    metrics, timing = read_json(metrics_file), read_json(context.paths["latency"])
    if metrics["model_digest"] != read_spec(model).digest or name not in timing:
        return None
    cost = weighted_cost(
        metrics["escapes"], metrics["overkills"], context.params.cost.overkill_weight
    )
    return {**flat_figures(metrics), **timing[name], "model_name": name, "cost": cost}


def _failures(context: Context) -> dict[str, str]:
    """Return the last words of each model that failed in this run."""
    failures: dict[str, str] = {}
    for path in sorted(context.paths["failures"].glob("*.json")):
        record = read_json(path)
        failures.setdefault(record["model"], f"{record['stage']}: {record['message']}")
    return failures
