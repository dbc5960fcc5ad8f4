"""DAG `rollback`: an earlier champion back before the line, by hand and for a reason."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Param
from live_check import verify_live
from stage_operator import CommandOperator, retrying

with DAG(
    dag_id="rollback",
    description="Move the alias `champion` back to a version that was champion before",
    doc_md=Path(__file__).with_suffix(".md").read_text(),
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    params={
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            description="A version that was champion before; empty: the one with alias previous.",
        ),
        # Without a default the form does not start a run before something is typed.
        "reason": Param(
            type="string",
            minLength=1,
            maxLength=500,
            pattern=r"\S",
            description="Why the champion has to go. Kept in the ledger.",
        ),
    },
    tags=["zdm"],
):
    rollback = CommandOperator(
        task_id="rollback",
        command='zdm rollback ${VERSION:+--to "$VERSION"} --reason="$REASON" --who="$WHO"'
        ' --asked="$ASKED" --json',
        env={
            "VERSION": "{{ '' if params.version is none else params.version }}",
            "REASON": "{{ params.reason }}",
            "WHO": "{{ dag_run.triggering_user_name or '' }}",
            # Kept when the run is cleared: what became champion since then was not meant.
            "ASKED": "{{ dag_run.run_after.isoformat() }}",
        },
        execution_timeout=timedelta(minutes=15),
        **retrying(1),
    )
    rollback.set_downstream(verify_live())
