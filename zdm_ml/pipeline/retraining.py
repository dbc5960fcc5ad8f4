"""How a retraining shows in MLflow while it runs: one parent, one nested run per model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zdm_ml.errors import PipelineError
from zdm_ml.pipeline.plan import RunRecord, read_record, write_record
from zdm_ml.pipeline.workspace import existing_workspace, workspace_of
from zdm_ml.registry.finished import parent_params, parent_tags
from zdm_ml.registry.runs import Training, start_parent
from zdm_ml.registry.tracking import Tracking

if TYPE_CHECKING:
    from zdm_ml.pipeline.stages import Context
    from zdm_ml.registry.tracking import ModelRun
    from zdm_ml.settings import Settings

logger = logging.getLogger(__name__)


def open_parent_run(settings: Settings, record: RunRecord) -> RunRecord:
    """Start the MLflow run of a retraining that has work to do, and remember it in its record."""
    if record.mlflow_run_id or not record.stale:
        return record
    tags = {**parent_tags(record), "note": record.note}
    parent = start_parent(settings.mlflow_uri, record.run_id, parent_params(record), tags)
    if parent is None:
        return record
    record = replace(record, mlflow_run_id=parent)
    write_record(workspace_of(settings, record.run_id), record)
    return record


@contextmanager
def model_run(
    context: Context, name: str, init: str, params: Mapping[str, Any]
) -> Iterator[ModelRun]:
    """Record a training live where it belongs to a run; at a desk nothing is sent.

    Of several processes that train together the leading one alone records.
    """
    record = _record(context)
    training = Training(
        model_name=name,
        profile=context.params.profile,
        run_id=record.run_id if record else "",
        data_md5=record.data_md5 if record else "",
        params=params,
        tags={
            **(parent_tags(record) if record else {}),
            "init": init,
        },
    )
    parent = record.mlflow_run_id if record and context.settings.rank == 0 else None
    tracking = Tracking(context.settings.mlflow_uri if parent else None, parent)
    with tracking.model_run(training) as run:
        yield run


def _record(context: Context) -> RunRecord | None:
    run_id = context.settings.run_id
    if run_id is None:
        return None
    try:
        return read_record(existing_workspace(context.settings, run_id))
    except PipelineError as error:
        logger.warning("%s", error)
        return None
