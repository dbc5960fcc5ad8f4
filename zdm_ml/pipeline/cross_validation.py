"""Comparisons of splits: k-fold cross-validation by casting, and shipped beside grouped."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zdm_ml.errors import ConfigError, PipelineError
from zdm_ml.files import read_json, write_json
from zdm_ml.pipeline.dvcfile import read_pipeline
from zdm_ml.pipeline.experiments import Bench, Variant

Reproduce = Callable[[Variant], Path]
"""Trains and evaluates a variant and returns its workspace."""

RATES = ("accuracy", "recall")
COUNTS = ("escapes", "overkills")
SIZES = {"by_image": ("images",), "by_casting": ("castings", "defective", "good")}
BOUNDS = ("escape_rate_upper", "overkill_rate_upper", "accuracy_lower", "recall_lower")
COMPARED = ("shipped", "grouped")


def kfold(reproduce: Reproduce, models: Sequence[str], folds: int) -> dict[str, Any]:
    """Train each model once per fold of castings; return every fold, mean, spread and failures.

    `mean` and `spread` (sample standard deviation) are over folds, `total` sums the counts: every
    casting is tested once.
    """
    if folds < 2:
        raise ConfigError(f"--folds {folds}: at least 2 are needed")
    measured: dict[str, list[dict[str, Any]]] = {model: [] for model in models}
    for fold in range(folds):
        split = {"protocol": "kfold", "folds": folds, "fold": fold}
        path = reproduce(Variant(f"kfold-{folds}-{fold}", models, split))
        for model in models:
            measured[model].append({"fold": fold, **read_figures(path, model)})
    summaries = {model: _summary(of_folds) for model, of_folds in measured.items()}
    return {"experiment": "kfold", "folds": folds, "models": summaries}


def compare_protocols(reproduce: Reproduce, models: Sequence[str]) -> dict[str, Any]:
    """Train each model on the shipped split and on one without leaks; return both figures."""
    found: dict[str, dict[str, Any]] = {model: {} for model in models}
    for protocol in COMPARED:
        path = reproduce(Variant(f"protocol-{protocol}", models, {"protocol": protocol}))
        for model in models:
            found[model][protocol] = read_figures(path, model)
    return {"experiment": "protocols", "models": found}


def score_lockbox(bench: Bench, models: Sequence[str]) -> dict[str, Any]:
    """Train each model outside the lockbox and test it inside; `looks` counts how often.

    The first look tells how good the choices are; each further one makes the lockbox a test set
    like any other. Looks are counted before they are shown.
    """
    path = bench.reproduce(Variant("lockbox", models, {"protocol": "grouped", "lockbox": "open"}))
    found = {model: {"lockbox": read_figures(path, model)} for model in models}
    file = bench.settings.home / "experiments" / "lockbox-looks.json"
    looks = read_json(file) if file.is_file() else []
    looks.append({"data": bench.data.commit, "code": bench.commit, "models": list(models)})
    write_json(file, looks)
    return {"experiment": "lockbox", "looks": len(looks), "models": found}


def read_figures(path: Path, model: str) -> dict[str, Any]:
    """Return what `evaluate` found in a workspace, by image and by casting.

    Errors are those of its verdicts. `intervals` of the rates by image come from a bootstrap over
    castings. `seen` are its leaky figures on shipped test images of castings that trained it.
    """
    file = path / read_pipeline(path).paths["evaluation"] / model / "metrics.json"
    try:
        metrics = read_json(file)
        castings = metrics["by_casting"]
        return {
            "leaky": bool(metrics["leaky"]),
            "protocol": str(metrics["protocol"]),
            "by_image": {
                **{k: metrics[k] for k in (*RATES, *SIZES["by_image"])},
                **{k: metrics["decision"][k] for k in COUNTS},
            },
            "intervals": metrics["intervals"]["per_image"],
            "by_casting": {
                **{k: castings[k] for k in (*RATES, *COUNTS, *SIZES["by_casting"])},
                **{k: castings.get(k) for k in BOUNDS},
            },
            "seen": metrics.get("seen"),
            "failed": [_failure(entry) for entry in castings["failed"]],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PipelineError(
            f"{file} lacks figures by casting: {type(error).__name__}: {error}",
            hint=f"`dvc repro --force evaluate@{model}` in {path} writes them",
        ) from error


def _failure(entry: Any) -> dict[str, Any]:
    """Return a failed casting: evaluate names it alone or with its label and images."""
    return dict(entry) if isinstance(entry, Mapping) else {"part": str(entry)}


def _summary(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "folds": list(folds),
        "mean": _over(folds, (*RATES, *COUNTS), statistics.fmean),
        "spread": _over(folds, (*RATES, *COUNTS), _deviation),
        "total": {
            kind: {key: sum(fold[kind][key] for fold in folds) for key in (*COUNTS, *sizes)}
            for kind, sizes in SIZES.items()
        },
        "failed": [
            {**failure, "fold": fold["fold"]} for fold in folds for failure in fold["failed"]
        ],
    }


def _over(
    folds: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    statistic: Callable[[Sequence[float]], float],
) -> dict[str, dict[str, float | None]]:
    """Apply a statistic to each figure over the folds that have it."""
    found: dict[str, dict[str, float | None]] = {}
    for kind in SIZES:
        found[kind] = {}
        for key in keys:
            values = [fold[kind][key] for fold in folds if fold[kind][key] is not None]
            found[kind][key] = statistic(values) if values else None
    return found


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
