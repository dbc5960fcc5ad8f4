"""What is written into an MLflow run, in few requests: parameters, metrics, tags, dataset."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

BATCH = 900
"""Metrics per request; MLflow refuses more than 1,000."""


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, Any]) -> None:
    """Log parameters, nested ones with dotted names; those already there stay."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    flat = {key: value for key, value in _flatten(params) if key not in known}
    for chunk in _chunks([Param(key, str(value)[:6000]) for key, value in flat.items()], 100):
        client.log_batch(run_id, params=chunk)


def log_dataset(client: MlflowClient, run_id: str, data_md5: str) -> None:
    """Name the DVC-tracked folder as the run's dataset."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = client.get_run(run_id).inputs
    if inputs is not None and inputs.dataset_inputs:
        return
    source = json.dumps({"dvc": "data/castings", "md5": data_md5})
    dataset = Dataset("castings", data_md5, source_type="dvc", source=source)
    tags = [InputTag("mlflow.data.context", "training")]
    client.log_inputs(run_id, [DatasetInput(dataset, tags)])


def log_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    """Log metrics in as few requests as MLflow allows."""
    for chunk in _chunks(metrics, BATCH):
        client.log_batch(run_id, metrics=chunk, synchronous=True)


def set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, Any]) -> None:
    """Set several tags in one request."""
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in text(tags).items()])


def metric(name: str, value: float, step: int) -> Metric:
    """Return one metric, stamped with the time it is made."""
    from mlflow.entities import Metric

    return Metric(name, float(value), int(time.time() * 1000), step)


def missing(client: MlflowClient, run_id: str, history: Path) -> list[Metric]:
    """Return the history's metrics that the server never got."""
    with history.open(newline="") as file:
        records = list(csv.DictReader(file))
    keys = [key for key in (records[0] if records else {}) if key != "epoch"]
    known = {key: {entry.step for entry in client.get_metric_history(run_id, key)} for key in keys}
    return [
        metric(key, float(record[key]), int(record["epoch"]))
        for record in records
        for key in keys
        if record[key] and int(record["epoch"]) not in known[key]
    ]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield every number in nested mappings with its dotted name."""
    for key, value in _flatten(values):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield key, float(value)


def text(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return tags the way MLflow keeps them: as text."""
    return {key: str(value) for key, value in sorted(tags.items())}


def _chunks(items: Sequence[Any], size: int) -> Iterable[list[Any]]:
    return (list(items[start : start + size]) for start in range(0, len(items), size))
