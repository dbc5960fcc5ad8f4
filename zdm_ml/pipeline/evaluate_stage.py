"""The stage `evaluate`: one model's scores, threshold, figures, curves, robustness and maps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zdm_ml.data.manifest import Row, read_manifest
from zdm_ml.data.splits import leaks, seen_rows
from zdm_ml.evaluation.calibration import Calibration, calibrate, calibrate_cross_fitted
from zdm_ml.evaluation.castings import casting_records
from zdm_ml.evaluation.figures import (
    brief,
    cost_curve,
    decision_figures,
    reliability_of,
    seen_figures,
    side_figures,
)
from zdm_ml.evaluation.map_licence import SALIENCY_FILE, read_licence
from zdm_ml.evaluation.metrics import (
    Scores,
    confusion_rows,
    metrics,
    pr_points,
    roc_points,
    side,
)
from zdm_ml.evaluation.robustness import robustness
from zdm_ml.evaluation.sampling import spread
from zdm_ml.evaluation.scoring import score_rows
from zdm_ml.files import write_json
from zdm_ml.models.net import LoadedNet, load_net
from zdm_ml.params import CostParams
from zdm_ml.pipeline.fitting import CROSSFIT_FILE, read_scores
from zdm_ml.pipeline.map_measuring import MAPS_FOLDER, Judge, draw_maps, measure_maps
from zdm_ml.pipeline.stages import Context, write_csv
from zdm_ml.training.device import choose_device

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
HELD_OUT = ("val", "calibration", "test")
CASTING_COLUMNS = ("part", "label", "images", "wrong", "mean_score", "failed")
RELIABILITY_COLUMNS = ("bin", "images", "weight", "predicted", "defective")
COST_COLUMNS = ("threshold", "escape_rate", "overkill_rate", "cost")
PERTURBATION_COLUMNS = (
    "perturbation",
    "accuracy",
    "balanced_accuracy",
    "escapes",
    "overkills",
    "images",
)


def evaluate(
    context: Context, name: str, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Write all that is measured of one model; return the figures of metrics.json.

    The threshold comes from the calibration castings: the test castings only measure it. What a
    split leaks is in the figures as `leaky`; `seen` are images of castings that trained the model.
    """
    params, out = context.params, context.paths["evaluation"] / name
    context.verified_castings()
    loaded = load_net(context.paths["models"] / name, choose_device(params.train.device))
    manifest = read_manifest(context.paths["manifest"])
    held_out = [row for row in manifest if row.split in HELD_OUT]
    seen = spread(seen_rows(manifest), params.split.holdout_limit, params.seed)
    scores = _scored(context, loaded, [*held_out, *seen], progress)
    scores, seen_scores = scores[: len(held_out)], scores[len(held_out) :]
    calibration, scores = calibrated(context, context.paths["models"] / name, held_out, scores)
    threshold, verdicts = calibration.threshold.value, calibration.verdicts
    tested = [at for at, row in enumerate(held_out) if row.split == "test"]
    test_rows, test_scores = [held_out[at] for at in tested], scores[tested]
    figures = {
        **side_figures(test_scores, test_rows, threshold, verdicts, params.evaluate, params.seed),
        "decision": decision_figures(test_scores, test_rows, verdicts, params.cost),
        "guarantee": calibration.guarantee.reason,
        "reliability": reliability_of(test_scores, test_rows, calibration.temperature),
        **_provenance(context, manifest),
        "init": loaded.spec.init,
        "profile": loaded.spec.profile,
        "model_digest": loaded.spec.digest,
        "val": brief(metrics(*side(scores, held_out, "val"), threshold)),
        "seen": seen_figures(seen_scores, seen, threshold),
        "robustness": _robustness(context, loaded, test_rows, threshold, progress),
    }
    judge = Judge(loaded, verdicts, params, context.paths["castings"])
    _explain(judge, test_rows, test_scores, out, progress)
    write_json(out / "decision.json", calibration.as_decision())
    write_json(out / "metrics.json", figures)
    _write_scores(out / "scores.csv", held_out, scores)
    _write_tables(out, test_rows, test_scores, figures, params.cost)
    return figures


def calibrated(
    context: Context, folder: Path, rows: Sequence[Row], scores: Scores
) -> tuple[Calibration, Scores]:
    """Return the threshold of the net in `folder`, and the scores of `rows` as they count.

    Under cross-fitting val and calibration were trained on: what counts there is the score of the
    net that did not see them.
    """
    cost, promise = context.params.cost, context.params.verdict
    fitted = read_scores(folder / CROSSFIT_FILE)
    if fitted is None:
        return calibrate(scores, rows, cost, promise), scores
    learnt = [row for row in read_manifest(context.paths["manifest"]) if row.path in fitted]
    calibration = calibrate_cross_fitted(
        np.array([fitted[row.path] for row in learnt]),
        np.array([row.target for row in learnt], dtype=np.int64),
        [row.part for row in learnt],
        cost,
        promise,
    )
    honest = [fitted.get(row.path, score) for row, score in zip(rows, scores, strict=True)]
    return calibration, np.array(honest)


def judged(context: Context, folder: Path, rows: Sequence[Row]) -> tuple[Calibration, Scores]:
    """Score held-out `rows` with the net in `folder`; return its threshold and those scores."""
    loaded = load_net(folder, choose_device(context.params.train.device))
    return calibrated(context, folder, rows, _scored(context, loaded, rows))


def _scored(
    context: Context,
    loaded: LoadedNet,
    rows: Sequence[Row],
    progress: Progress = lambda done, total: None,
) -> Scores:
    return score_rows(
        loaded,
        rows,
        context.paths["castings"],
        batch_size=context.params.evaluate.batch_size,
        max_pixels=context.params.audit.max_pixels,
        on_step=progress,
    )


def _provenance(context: Context, manifest: Sequence[Row]) -> dict[str, Any]:
    protocol, leaking = context.params.split.protocol, leaks(manifest)
    return {
        "protocol": protocol,
        # The shipped split may leak in ways that no part id shows.
        "leaky": protocol == "shipped" or bool(leaking),
        "leaking_castings": len(leaking),
    }


def _robustness(
    context: Context,
    loaded: LoadedNet,
    rows: Sequence[Row],
    threshold: float,
    progress: Progress,
) -> dict[str, Any]:
    params = context.params
    return robustness(
        loaded,
        spread(rows, params.evaluate.perturbation_limit, params.seed),
        context.paths["castings"],
        threshold,
        seed=params.seed,
        batch_size=params.evaluate.batch_size,
        max_pixels=params.audit.max_pixels,
        on_step=progress,
    )


def _explain(
    judge: Judge, rows: Sequence[Row], scores: Scores, out: Path, progress: Progress
) -> None:
    """Measure the heat maps and draw a few of test defects."""
    started = time.monotonic()
    write_json(out / SALIENCY_FILE, measure_maps(judge, rows, progress))
    licence = read_licence(out / SALIENCY_FILE, judge.loaded.spec.digest)
    score_of = {row.path: float(score) for row, score in zip(rows, scores, strict=True)}
    draw_maps(judge, rows, score_of, licence, out / MAPS_FOLDER)
    seconds = time.monotonic() - started
    logger.info("%s: %s (%.1f s)", judge.loaded.spec.model_name, licence.reason, seconds)


def _write_tables(
    out: Path,
    rows: Sequence[Row],
    scores: Scores,
    figures: Mapping[str, Any],
    cost: CostParams,
) -> None:
    targets = np.array([row.target for row in rows], dtype=np.int64)
    threshold, decision = figures["threshold"], figures["decision"]
    between = (decision["ok_below"], decision["defect_from"])
    castings = casting_records(scores, targets, [row.part for row in rows], *between)
    perturbed = figures["robustness"]["perturbations"]
    _write_points(out / "roc.csv", ("fpr", "tpr", "threshold"), roc_points(scores, targets))
    _write_points(out / "pr.csv", ("recall", "precision", "threshold"), pr_points(scores, targets))
    _write_points(
        out / "confusion.csv",
        ("actual", "predicted"),
        confusion_rows(scores, targets, threshold),
    )
    _write_points(out / "reliability.csv", RELIABILITY_COLUMNS, figures["reliability"]["bins"])
    _write_points(out / "cost_curve.csv", COST_COLUMNS, cost_curve(scores, rows, cost))
    _write_points(
        out / "castings.csv",
        CASTING_COLUMNS,
        [{**record, "failed": int(record["failed"])} for record in castings],
    )
    _write_points(
        out / "robustness.csv",
        PERTURBATION_COLUMNS,
        [{"perturbation": name, **row} for name, row in perturbed.items()],
    )


def _write_scores(path: Path, rows: Sequence[Row], scores: Scores) -> None:
    columns = ("path", "split", "label", "part", "score")
    records = (
        (row.path, row.split, row.label, row.part, repr(float(score)))
        for row, score in zip(rows, scores, strict=True)
    )
    write_csv(path, columns, records)


def _write_points(path: Path, columns: Sequence[str], points: Sequence[Mapping[str, Any]]) -> None:
    write_csv(path, columns, ([point[column] for column in columns] for point in points))
