"""The last task of every DAG that moves the champion."""

from __future__ import annotations

from datetime import timedelta

from stage_operator import CommandOperator, retrying


def verify_live() -> CommandOperator:
    """Return the task that sees the inference server follow the champion."""
    return CommandOperator(
        task_id="verify_live",
        command="zdm verify-live --json",
        execution_timeout=timedelta(minutes=10),
        **retrying(2),
    )
