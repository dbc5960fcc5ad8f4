"""The stages `latency` and `select`: all models side by side."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from zdm_ml.data.images import decode_grey
from zdm_ml.errors import PipelineError
from zdm_ml.evaluation.chart import chart
from zdm_ml.evaluation.comparison import Comparison, Judged, Margins, compare, judged
from zdm_ml.evaluation.latency import measure
from zdm_ml.evaluation.lead import Candidate, Policy
from zdm_ml.evaluation.leaderboard import flat_figures, leaderboard
from zdm_ml.evaluation.report import markdown
from zdm_ml.evaluation.selection import select as choose
from zdm_ml.evaluation.verdicts import Verdicts
from zdm_ml.files import read_json, write_bytes, write_json, write_text
from zdm_ml.models.net import load_net, read_spec
from zdm_ml.params import Params
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
    figures = evaluated(context)
    selection = choose(
        candidates_of(figures),
        policy=policy_of(params),
        compare=partial(_compare, context, list(figures)),
        seeds=read_json(context.paths["confirm"])["costs"],
        failures=_failures(context),
        requested=list(params.models),
    )
    rows = leaderboard(selection, figures)
    page = markdown(rows, selection, params.cost, params.verdict)
    write_json(context.paths["leaderboard"], rows)
    write_text(context.paths["leaderboard_md"], page)
    write_bytes(
        context.paths["leaderboard_plot"],
        chart(rows, selection.winner, params.cost.currency),
    )
    write_json(context.paths["selection"], selection.as_dict())
    return selection.as_dict(), page


def evaluated(context: Context) -> dict[str, dict[str, Any]]:
    """Return what is known of each model whose figures belong to its weights, flat."""
    names = context.params.models
    return {name: found for name in names if (found := _figures(context, name))}


def candidates_of(figures: Mapping[str, Mapping[str, Any]]) -> list[Candidate]:
    """Return the models of `evaluated` as a selection takes them."""
    fields = Candidate.__dataclass_fields__
    return [Candidate(**{key: row[key] for key in fields}) for row in figures.values()]


def _figures(context: Context, name: str) -> dict[str, Any] | None:
    """Return what is known of a model, or None unless its figures belong to its weights."""
    metrics_file = context.paths["evaluation"] / name / "metrics.json"
    model = context.paths["models"] / name
    if not metrics_file.is_file() or not model.is_dir():
        return None
    metrics, timing = read_json(metrics_file), read_json(context.paths["latency"])
    if metrics["model_digest"] != read_spec(model).digest or name not in timing:
        return None
    if "guarantee" not in metrics:
        raise PipelineError(
            f"{metrics_file} was written by an earlier version of the product",
            hint=f"`dvc repro evaluate@{name}` writes it anew",
        )
    return {**flat_figures(metrics), **timing[name], "model_name": name}


def policy_of(params: Params) -> Policy:
    """Return how the winner is chosen."""
    select, cost = params.select, params.cost
    return Policy(
        name=select.policy,
        cost_margin=select.cost_margin,
        currency=cost.currency,
        max_milliseconds=1000 * cost.takt_seconds,
        max_bytes=None if select.max_megabytes is None else 1e6 * select.max_megabytes,
        min_models=select.min_models,
    )


def _compare(context: Context, names: Sequence[str], reference: str) -> list[Comparison]:
    """Compare the test verdicts of every other model with those of `reference`."""
    params = context.params
    margins = Margins(
        escape_rate=params.select.escape_margin,
        overkill_rate=params.select.overkill_margin,
        cost=params.select.cost_margin,
        confidence=params.evaluate.confidence,
        resamples=params.evaluate.resamples,
        seed=params.seed,
    )
    others = [(name, _judged(context, name)) for name in names if name != reference]
    return compare((reference, _judged(context, reference)), others, margins)


def _judged(context: Context, name: str) -> Judged:
    folder = context.paths["evaluation"] / name
    decision = read_json(folder / "decision.json")
    with (folder / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return judged(
        np.array([float(row["score"]) for row in rows]),
        np.array([int(row["label"] == "defect") for row in rows], dtype=np.int64),
        [row["part"] for row in rows],
        Verdicts(decision["ok_below"], decision["defect_from"]),
        context.params.cost,
    )


def _failures(context: Context) -> dict[str, str]:
    """Return the last words of each model that failed in this run."""
    failures: dict[str, str] = {}
    for path in sorted(context.paths["failures"].glob("*.json")):
        record = read_json(path)
        failures.setdefault(record["model"], f"{record['stage']}: {record['message']}")
    return failures
