"""DAG `intake`: images that have arrived in the inbox become one new data version."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, Context, CronTriggerTimetable, exceptions
from stage_operator import CommandOperator, retrying

from zdm_ml.settings import load_settings

SETTINGS = load_settings(root=Path(__file__).resolve().parents[1])
CASTINGS = Asset("castings")


class IntakeOperator(CommandOperator):
    """Take in what has arrived; only images that no retraining knows become an asset event."""

    def execute(self, context: Context) -> Any:
        result = super().execute(context)
        # Announced again after a while: an event may have been lost before a retraining began.
        if not result["announce"]:
            raise exceptions.AirflowSkipException(f"no new images: {result['reason']}")
        extra = {"data_md5": result["data_md5"], "version": result["version"]}
        context["outlet_events"][CASTINGS].extra = extra
        return result


with DAG(
    dag_id="intake",
    description="Take in labelled images from the inbox as a new data version",
    doc_md=Path(__file__).with_suffix(".md").read_text(),
    # No start date and a zero window: a fresh stack has no past schedule to catch up with.
    schedule=CronTriggerTimetable(
        SETTINGS.intake_schedule, timezone="UTC", run_immediately=timedelta(0)
    ),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    tags=["zdm"],
):
    IntakeOperator(
        task_id="intake",
        command="zdm data intake --json",
        outlets=[CASTINGS],
        execution_timeout=timedelta(hours=1),
        **retrying(2),
    )
