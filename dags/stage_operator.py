"""Airflow operators that run one `zdm` command each, in a process of its own.

Text that people typed reaches a command through its environment, never through the shell line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Asset, Context, TriggerRule, exceptions

from zdm_ml.pipeline.dvcfile import Stage

RUN_ID = '"$AIRFLOW_CTX_DAG_RUN_ID"'
RESULT = "result"


def task_id(stage: Stage) -> str:
    """Return a stage's task id in its group: `@` is not allowed in one."""
    return f"{stage.group}.{stage.item}" if stage.item else stage.group


def retrying(retries: int) -> dict[str, Any]:
    """Return retry settings: waits of 10, 20, 40 ... seconds, at most five minutes."""
    waits = {"retry_delay": timedelta(seconds=10), "max_retry_delay": timedelta(minutes=5)}
    return {"retries": retries, "retry_exponential_backoff": 2.0, **waits}


class CommandOperator(BashOperator):
    """Run a command and return the JSON object that is the last line of its stdout."""

    def __init__(self, *, command: str, env: Mapping[str, str] | None = None, **kwargs: Any):
        # BashOperator mixes stderr into its output: the result is printed after all of it. Exit
        # code 3 is a refusal that trying again does not change: it has a result as well.
        script = (
            f"result=$({command}) || [ $? -eq 3 ] || exit\nprintf '%s\\n' \"${{result##*$'\\n'}}\""
        )
        options = {"append_env": True, "output_processor": json.loads, **kwargs}
        super().__init__(bash_command=script, env=dict(env or {}), **options)

    def execute(self, context: Context) -> Any:
        result = super().execute(context)
        if result.get("reason"):
            self.log.info("%s: %s", result.get("decision", "result"), result["reason"])
        context["ti"].xcom_push(key=RESULT, value=result)
        return result


class PlanOperator(CommandOperator):
    """Ask once what is stale and skip every other stage without starting it."""

    def __init__(self, *, stages: Mapping[str, str], **kwargs: Any):
        super().__init__(**kwargs)
        self.stages = dict(stages)

    def execute(self, context: Context) -> Any:
        plan = super().execute(context)
        current = [task for stage, task in self.stages.items() if stage not in plan["stale"]]
        if not current:
            return plan
        self.log.info("nothing to do for %d of %d stages", len(current), len(self.stages))
        raise exceptions.DownstreamTasksSkipped(tasks=current)


class StageOperator(BashOperator):
    """Run one stage of dvc.yaml in the run's workspace; the command resumes and fences itself."""

    def __init__(self, *, stage: Stage, gpu_slots: int, **kwargs: Any):
        meta = stage.airflow
        slots = meta.get("pool_slots", 1)
        super().__init__(
            # exec: the command's parent is then the task itself, with which it must die.
            bash_command=f"exec zdm workspace stage --run-id {RUN_ID} '{stage.name}'",
            pool=meta.get("pool", "default_pool"),
            pool_slots=gpu_slots if slots == "all" else slots,
            execution_timeout=timedelta(minutes=meta.get("timeout_minutes", 60)),
            trigger_rule=TriggerRule(meta.get("trigger_rule", "none_failed")),
            do_xcom_push=False,
            doc_md=f"`{stage.command}`",
            **retrying(meta.get("retries", 0)),
            **kwargs,
        )
        self.stage = stage.name

    def execute(self, context: Context) -> Any:
        if self.trigger_rule == TriggerRule.ALL_DONE and self._all_upstream_failed(context):
            raise exceptions.AirflowFailException("every stage before this one failed")
        plan = context["ti"].xcom_pull(task_ids="plan", key=RESULT)
        if self.stage in plan["stale"]:
            return super().execute(context)
        raise exceptions.AirflowSkipException(f"{self.stage} is current or deselected")

    def _all_upstream_failed(self, context: Context) -> bool:
        ti, run, above = context["ti"], context["ti"].run_id, sorted(self.upstream_task_ids)
        found = ti.get_task_states(dag_id=self.dag_id, task_ids=above, run_ids=[run]).get(run, {})
        return set(found.values()) <= {"failed", "upstream_failed"}


class RegisterOperator(CommandOperator):
    """Register the winner; only a version that is new to the registry becomes an asset event."""

    def __init__(self, *, asset: Asset, **kwargs: Any):
        super().__init__(outlets=[asset], **kwargs)
        self.asset = asset

    def execute(self, context: Context) -> Any:
        result = super().execute(context)
        if result["decision"] == "not_eligible":
            raise exceptions.AirflowFailException(result["reason"])
        # Pending: registered before, but its event was lost or its promotion never ran.
        if result["decision"] != "registered" and not result["pending"]:
            raise exceptions.AirflowSkipException(f"no new version: {result.get('reason', '')}")
        extra = {"version": result["version"], "ask_approval": context["params"]["ask_approval"]}
        context["outlet_events"][self.asset].extra = extra
        return result
