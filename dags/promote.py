"""DAG `promote`: put one registered version before the gate, and before the line if it passes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, Param
from stage_operator import CommandOperator, retrying

CHALLENGER = Asset("casting-inspector-challenger")


def chosen_version(params: Mapping[str, Any], events: Mapping[Asset, list[Any]] | None) -> str:
    """Return the version from the form, else from the newest asset event, else nothing."""
    if params.get("version") is not None:
        return str(params["version"])
    newest = [event for found in (events or {}).values() for event in found][-1:]
    return str(newest[0].extra.get("version", "")) if newest else ""


with DAG(
    dag_id="promote",
    description="Gate a registered version and move the alias `champion` to it",
    doc_md=Path(__file__).with_suffix(".md").read_text(),
    schedule=[CHALLENGER],
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    params={
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            description="A version of casting-inspector; empty: the one with alias challenger.",
        )
    },
    user_defined_macros={"chosen_version": chosen_version},
    tags=["zdm"],
):
    gate = CommandOperator(
        task_id="gate",
        command='zdm gate ${VERSION:+"$VERSION"} --json',
        env={"VERSION": "{{ chosen_version(params, triggering_asset_events) }}"},
        execution_timeout=timedelta(hours=1),
        **retrying(2),
    )
    promote = CommandOperator(
        task_id="promote",
        command='zdm promote "$VERSION" --json',
        env={"VERSION": "{{ ti.xcom_pull(task_ids='gate', key='result')['version'] }}"},
        execution_timeout=timedelta(hours=1),
        **retrying(2),
    )
    verify_live = CommandOperator(
        task_id="verify_live",
        command="zdm verify-live --json",
        execution_timeout=timedelta(minutes=10),
        **retrying(2),
    )
    gate.set_downstream(promote)
    promote.set_downstream(verify_live)
