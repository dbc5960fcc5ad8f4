"""DAG `promote`: put one registered version before the gate, and before the line if it passes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, Param
from approval_operator import ASK_APPROVAL, REASON, PromotionApproval
from live_check import verify_live
from stage_operator import CommandOperator, retrying

CHALLENGER = Asset("casting-inspector-challenger")
CHECKED = "ti.xcom_pull(task_ids='gate', key='result')"
"""What the task `gate` printed, for templates."""
ASKED = "asked(params, triggering_asset_events)"
AGAIN = '${AGAIN:+--again --asked="$AGAIN"}'
AGAIN_SINCE = "{{ dag_run.run_after.isoformat() if params.again else '' }}"
"""A run that is cleared after another promotion no longer lets an old version in."""

Events = Mapping[Asset, list[Any]]


def newest_extra(events: Events | None) -> Mapping[str, Any]:
    """Return what the newest of the asset events that started a run says; nothing without any."""
    newest = [event for found in (events or {}).values() for event in found][-1:]
    return newest[0].extra if newest else {}


def chosen_version(params: Mapping[str, Any], events: Events | None) -> str:
    """Return the version from the form, else from the newest asset event, else nothing."""
    if params.get("version") is not None:
        return str(params["version"])
    return str(newest_extra(events).get("version", ""))


def asked(params: Mapping[str, Any], events: Events | None) -> bool:
    """Tell whether this form, or that of the retraining before it, asks for an approval."""
    return bool(params.get("ask_approval") or newest_extra(events).get("ask_approval"))


with DAG(
    dag_id="promote",
    description="Gate a registered version and move the alias `champion` to it",
    doc_md=Path(__file__).with_suffix(".md").read_text(),
    schedule=[CHALLENGER],
    catchup=False,
    is_paused_upon_creation=False,
    # A run that waits for a person must not keep a newer version from the gate, and costs nothing.
    max_active_runs=100,
    params={
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            description="A version of casting-inspector; empty: the one with alias challenger.",
        ),
        "ask_approval": ASK_APPROVAL,
        "again": Param(
            False,
            type="boolean",
            description="Let in what was rolled back, or is older than the champion.",
        ),
    },
    user_defined_macros={"chosen_version": chosen_version, "asked": asked},
    tags=["zdm"],
):
    gate = CommandOperator(
        task_id="gate",
        command=f'zdm gate ${{VERSION:+"$VERSION"}} ${{ASK:+--ask}} {AGAIN} --json',
        env={
            "VERSION": "{{ chosen_version(params, triggering_asset_events) }}",
            "ASK": f"{{{{ '1' if {ASKED} else '' }}}}",
            "AGAIN": AGAIN_SINCE,
        },
        max_active_tis_per_dag=1,
        execution_timeout=timedelta(hours=1),
        **retrying(2),
    )
    approval = PromotionApproval(
        task_id="approval",
        gate="gate",
        params={"reason": REASON},
        execution_timeout=timedelta(minutes=10),
        **retrying(2),
    )
    promote = CommandOperator(
        task_id="promote",
        # Skipped approval: nobody had to be asked. A rejection skips this task itself.
        trigger_rule="none_failed",
        command='zdm promote "$VERSION" --digest "$DIGEST" ${APPROVED:+--approved}'
        f" {AGAIN} --json",
        env={
            "VERSION": f"{{{{ {CHECKED}['version'] }}}}",
            "DIGEST": f"{{{{ {CHECKED}['digest'] }}}}",
            # Also where the gate said no and nobody was asked: it may say yes this time.
            "APPROVED": f"{{{{ '1' if {CHECKED}['approval'] or {ASKED} else '' }}}}",
            "AGAIN": AGAIN_SINCE,
        },
        max_active_tis_per_dag=1,
        execution_timeout=timedelta(hours=1),
        **retrying(2),
    )
    gate.set_downstream(approval)
    approval.set_downstream(promote)
    promote.set_downstream(verify_live())
