"""The Airflow operator that asks a person before a promotion and has the answer written down.

Requests wait as rows of Airflow's database, without a process or a slot, through any restart.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context, Param, exceptions
from stage_operator import RESULT

ASK_APPROVAL = Param(
    False,
    type="boolean",
    description="Ask a person before the promotion even where params.yaml "
    "(promote.require_approval) demands none. Where it does, a person is asked anyway.",
)
REASON = Param(
    None,
    type=["null", "string"],
    format="multiline",
    maxLength=500,
    description="Why? Kept in the ledger with your name.",
)


class PromotionApproval(ApprovalOperator):
    """Ask the people whom task `gate` names about exactly the package that it looked at.

    No answer in time is a rejection. Rejected, this task succeeds and all after it are skipped.
    """

    def __init__(self, *, gate: str, **kwargs: Any):
        super().__init__(
            subject="Promote?",
            defaults=[self.REJECT],
            # In the place of what gate's answer says; without it execution_timeout would count.
            response_timeout=timedelta(hours=1),
            **kwargs,
        )
        self.gate = gate

    def execute(self, context: Context) -> Any:
        checked = self._checked(context)
        request = checked["approval"]
        if request is None:
            raise exceptions.AirflowSkipException(f"nobody is asked: {checked['reason']}")
        self._write(context, "ask")
        self.subject, self.body = request["subject"], request["body"]
        self.assigned_users = [{"id": user, "name": user} for user in request["approvers"]]
        self.response_timeout = timedelta(hours=request["hours"])
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        typed: Mapping[str, Any] = event["params_input"] or {}
        self.validate_params_input(typed)
        person = event["responded_by_user"] or {"id": "nobody", "name": ""}
        self._write(
            context,
            "approve" if event["chosen_options"] == [self.APPROVE] else "reject",
            f"--who={person['id']}",
            f"--name={person['name']}",
            f"--reason={typed.get('reason') or ''}",
        )
        return super().execute_complete(context, event)

    def _checked(self, context: Context) -> dict[str, Any]:
        found: dict[str, Any] = context["ti"].xcom_pull(task_ids=self.gate, key=RESULT)
        return found

    def _write(self, context: Context, answer: str, *options: str) -> None:
        """Have a line written; without it there is no answer, and a retry asks anew."""
        checked = self._checked(context)
        told = f"--digest={checked['digest']}", f"--champion={checked['champion'] or ''}"
        command = ["zdm", "approval", checked["version"], answer, *told, *options, "--json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise exceptions.AirflowException(f"zdm approval failed with {done.returncode}")
        result = json.loads(done.stdout.splitlines()[-1])
        self.log.info("%s: %s", result["decision"], result["reason"])
        context["ti"].xcom_push(key=RESULT, value=result)
