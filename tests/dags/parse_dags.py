"""Parses dags/ as Airflow does, in a process of its own, and prints what it found as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk.exceptions import ParamValidationError


def refused(form: Any, name: str, value: Any) -> bool:
    """Return whether the form refuses a value."""
    try:
        form.get_param(name).resolve(value)
    except ParamValidationError:
        return True
    return False


def assets(dag: Any) -> list[str]:
    """Return the names of the assets that start a DAG."""
    condition = getattr(dag.timetable, "asset_condition", None)
    return sorted(asset.name for asset in getattr(condition, "objects", []))


def main(folder: Path, asked: list[tuple[str, str, Any]]) -> None:
    """Parse the folder and answer which of the asked form values are refused."""
    begin = time.perf_counter()
    bag = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="test")
    seconds = time.perf_counter() - begin
    dags = {
        dag.dag_id: {
            "max_active_runs": dag.max_active_runs,
            "catchup": dag.catchup,
            "paused": dag.is_paused_upon_creation,
            "start_date": str(dag.start_date),
            "doc": dag.doc_md,
            "assets": assets(dag),
            "timetable": type(dag.timetable).__name__,
            "tasks": {
                task.task_id: {
                    "upstream": sorted(task.upstream_task_ids),
                    "trigger_rule": task.trigger_rule.value,
                    "pool": task.pool,
                    "slots": task.pool_slots,
                    "retries": task.retries,
                    "minutes": task.execution_timeout.total_seconds() / 60,
                    "together": task.max_active_tis_per_dag,
                    "command": getattr(task, "bash_command", ""),
                    "env": getattr(task, "env", None),
                    "defaults": getattr(task, "defaults", None),
                    "fields": sorted(getattr(task, "serialized_params", {})),
                    "outlets": [outlet.name for outlet in task.outlets],
                }
                for task in dag.tasks
            },
        }
        for dag in bag.dags.values()
    }
    print(  # noqa: T201 (the answer to the test that started this process)
        json.dumps(
            {
                "errors": bag.import_errors,
                "seconds": seconds,
                "dags": dags,
                "modules": sorted({name.split(".")[0] for name in sys.modules}),
                "refused": [refused(bag.dags[dag].params, n, value) for dag, n, value in asked],
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
