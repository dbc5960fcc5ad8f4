"""What a retraining came to: its decisions, its leaderboard, and what the live server answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from zdm_ml.airflow_api import AirflowApi
from zdm_ml.data.manifest import read_manifest
from zdm_ml.errors import RegistryError, StackError
from zdm_ml.files import read_json
from zdm_ml.pipeline.dvcfile import read_pipeline
from zdm_ml.pipeline.workspace import workspace_of
from zdm_ml.registry.glance import champion_summary
from zdm_ml.settings import Settings

Json = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What the commands of a retraining and of the promotion it caused printed; None: not run."""

    plan: Json | None
    register: Json | None
    promote: Json | None

    @property
    def nothing_to_do(self) -> bool:
        """True when every stage was current."""
        return self.plan is not None and not self.plan["stale"]

    @property
    def decision(self) -> str | None:
        """The last decision that was made."""
        last = self.promote or self.register
        return str(last["decision"]) if last else None


def read_outcome(api: AirflowApi, run_id: str, promote_id: str | None) -> Outcome:
    """Ask Airflow for the results of a run's deciding tasks."""
    tasks = ("promote", "approval", "gate") if promote_id is not None else ()
    results = (api.result("promote", str(promote_id), task) for task in tasks)
    return Outcome(
        plan=api.result("retrain", run_id, "plan"),
        register=api.result("retrain", run_id, "register"),
        promote=next((result for result in results if result is not None), None),
    )


def last_run(api: AirflowApi) -> Json | None:
    """Return run_id, state and decision of the newest retraining, or None before the first."""
    runs = api.runs("retrain", limit=1)
    if not runs:
        return None
    run_id = str(runs[0]["dag_run_id"])
    caused = [
        str(run["dag_run_id"])
        for run in api.runs("promote", limit=5)
        if run_id in api.caused_by("promote", str(run["dag_run_id"]))
    ]
    outcome = read_outcome(api, run_id, caused[0] if caused else None)
    return {"run_id": run_id, "state": runs[0]["state"], "decision": outcome.decision}


def leaderboard(settings: Settings, run_id: str) -> list[Json]:
    """Return the rows of a run's leaderboard, none when the run did not get that far."""
    path = _workspace_path(settings, run_id, "leaderboard")
    return list(read_json(path)) if path is not None else []


def test_image(settings: Settings, run_id: str) -> Path | None:
    """Return one test image of a run's data version, a defect where there is one."""
    castings = _workspace_path(settings, run_id, "castings")
    manifest = _workspace_path(settings, run_id, "manifest")
    if castings is None or manifest is None:
        return None
    test = [row for row in read_manifest(manifest) if row.split == "test"]
    chosen = max(test, key=lambda row: row.target, default=None)
    return castings / chosen.path if chosen else None


def _workspace_path(settings: Settings, run_id: str, name: str) -> Path | None:
    workspace = workspace_of(settings, run_id).path
    if not (workspace / "dvc.yaml").is_file():
        return None
    path = workspace / read_pipeline(workspace).paths[name]
    return path if path.exists() else None


def ask_live_server(settings: Settings, image: Path, seconds: float = 60.0) -> Json:
    """Return the live server's answer once it comes from the champion that the registry names."""
    champion = champion_summary(settings.mlflow_uri)
    if champion is None:
        raise RegistryError(
            "the registry names no champion, so the server answers nothing",
            hint="the log of task `gate` in DAG `promote` says why",
        )
    deadline = time.monotonic() + seconds
    while True:
        problem, answer = _predict(settings, image)
        if answer is not None:
            version = str(answer["model"]["version"])
            if version == champion["version"]:
                return answer
            problem = f"it answers with version {version}"
        if time.monotonic() > deadline:
            raise StackError(
                f"the live server does not serve champion version {champion['version']}: {problem}",
                hint=f"{settings.inference_url}/ready says why",
            )
        time.sleep(1)


def _predict(settings: Settings, image: Path) -> tuple[str, Json | None]:
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(
                f"{settings.inference_url}/predict", data=image.read_bytes(), timeout=30
            )
        if answer.ok:
            return "", dict(answer.json())
    except (requests.RequestException, ValueError):
        return "it does not answer", None
    return f"HTTP {answer.status_code} {answer.text[:200]}", None
