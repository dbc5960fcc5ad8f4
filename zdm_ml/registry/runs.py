"""MLflow runs of a retraining: one parent, one nested run per model, completed from files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zdm_ml.files import sha256_json
from zdm_ml.registry.connection import TRAINING, connect
from zdm_ml.registry.entries import (
    log_dataset,
    log_metrics,
    log_params,
    metric,
    missing,
    numbers,
    set_tags,
    text,
)
from zdm_ml.registry.naming import display_name, leak_tags
from zdm_ml.settings import EXPERIMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

COMPLETE = "complete"
EVALUATED = "evaluated"
RENAMED = {"seen": "leaky_seen"}


@dataclass(frozen=True)
class Training:
    """What is known of a training before it starts; `run_id` names the retraining."""

    model_name: str
    profile: str
    run_id: str
    data_md5: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedModel(Training):
    """A finished training: `model_digest` is the sha256 of the weights.

    `history` is a CSV with a row per epoch; `artifacts` maps each file to its folder in the run.
    """

    model_digest: str = ""
    history: Path | None = None
    artifacts: Mapping[Path, str] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)


def start_parent(
    uri: str, run_id: str, params: Mapping[str, Any], tags: Mapping[str, str]
) -> str | None:
    """Return the MLflow id of a retraining's parent run, made at its first call.

    None, with a warning, when the server does not answer: `register` makes it later.
    """
    try:
        return ensure_parent(connect(uri, TRAINING), run_id, params, tags)
    except Exception as error:  # whatever MLflow raises must not stop a retraining
        logger.warning("MLflow at %s does not record this run: %s", uri, _brief(error))
        return None


def ensure_parent(
    client: MlflowClient, run_id: str, params: Mapping[str, Any], tags: Mapping[str, str]
) -> str:
    """Find the parent run by the tag `run_id`, or create it."""
    experiment = ensure_experiment(client)
    found = find_run(client, {"run_id": run_id, "role": "parent"})
    if found is not None:
        return str(found.info.run_id)
    run = client.create_run(
        experiment, run_name=run_id, tags={**text(tags), "run_id": run_id, "role": "parent"}
    )
    log_params(client, run.info.run_id, params)
    return str(run.info.run_id)


def end_parent(
    client: MlflowClient,
    parent: str,
    *,
    succeeded: bool,
    reports: Path,
    tags: Mapping[str, str],
) -> None:
    """Close the parent run with the retraining's reports as artifacts and `tags` of its figures."""
    if tags:
        set_tags(client, parent, tags)
    if reports.is_dir():
        client.log_artifacts(parent, str(reports), "reports")
    client.set_terminated(parent, "FINISHED" if succeeded else "FAILED")


def ensure_experiment(client: MlflowClient) -> str:
    """Return the id of the product's experiment, created by whoever comes first."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    return str(found.experiment_id)


def find_run(client: MlflowClient, tags: Mapping[str, str]) -> Run | None:
    """Return the oldest run that has all these tags."""
    clauses = [f"tags.`{key}` = '{value}'" for key, value in sorted(tags.items())]
    found = client.search_runs(
        [ensure_experiment(client)],
        filter_string=" and ".join(clauses),
        order_by=["attributes.start_time ASC"],
        max_results=1,
    )
    return found[0] if found else None


def create_nested(client: MlflowClient, parent: str, training: Training) -> str:
    """Create the nested run of a model below `parent`."""
    run = client.create_run(
        ensure_experiment(client),
        run_name=display_name(training.model_name, training.profile),
        tags={
            **text(training.tags),
            "mlflow.parentRunId": parent,
            "model_name": training.model_name,
            "profile": training.profile,
            "data_md5": training.data_md5,
            "run_id": training.run_id,
            "role": "model",
        },
    )
    return str(run.info.run_id)


def find_nested(client: MlflowClient, training: Training) -> Run | None:
    """Return the run of a model in its retraining: a retried training continues it."""
    return find_run(
        client,
        {"run_id": training.run_id, "model_name": training.model_name, "role": "model"},
    )


def ensure_run(client: MlflowClient, trained: TrainedModel, parent: Callable[[], str]) -> str:
    """Return the run that trained these weights, with whatever it lacks filled in from files.

    `parent` is asked only when the run has to be created.
    """
    found = find_run(client, {"model_digest": trained.model_digest, "role": "model"})
    found = found or find_nested(client, trained)
    run_id = found.info.run_id if found else create_nested(client, parent(), trained)
    done = found.data.tags if found else {}
    if done.get(COMPLETE) != trained.model_digest:
        complete(client, run_id, trained)
    seen = done.get(EVALUATED, "").split()
    if trained.evaluation and _evaluated(trained) not in seen:
        log_evaluation(client, run_id, trained, seen)
    return str(run_id)


def complete(client: MlflowClient, run_id: str, trained: TrainedModel) -> None:
    """Write what a training's run lacks, close it, and mark it complete last."""
    log_params(client, run_id, trained.params)
    log_dataset(client, run_id, trained.data_md5)
    if trained.history is not None and trained.history.is_file():
        log_metrics(client, run_id, missing(client, run_id, trained.history))
        client.log_artifact(run_id, str(trained.history), "history")
    for path, folder in trained.artifacts.items():
        if path.is_file():
            client.log_artifact(run_id, str(path), folder)
    set_tags(client, run_id, {**trained.tags, "model_digest": trained.model_digest})
    client.set_terminated(run_id, "FINISHED")
    client.set_tag(run_id, COMPLETE, trained.model_digest)


def log_evaluation(
    client: MlflowClient, run_id: str, trained: TrainedModel, seen: Sequence[str]
) -> None:
    """Add the figures that `evaluate` measured, and whether they leak.

    Each evaluation is added once; `seen` are those before it, so that an older retraining whose
    registration is repeated does not put its figures over newer ones.

    Figures of castings that were trained on go under `leaky_seen`, so that nobody takes them for
    honest ones.
    """
    done = " ".join([*seen, _evaluated(trained)])
    named = {RENAMED.get(key, key): value for key, value in trained.evaluation.items()}
    figures = dict(numbers(named))
    log_metrics(client, run_id, [metric(key, value, 0) for key, value in figures.items()])
    for path, folder in trained.artifacts.items():
        if path.is_file():
            client.log_artifact(run_id, str(path), folder)
    set_tags(client, run_id, {**leak_tags(trained.evaluation), EVALUATED: done})


def _evaluated(trained: TrainedModel) -> str:
    """Return what changes when these weights are judged anew, say at another cost."""
    return sha256_json([trained.model_digest, trained.evaluation])[:16]


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
