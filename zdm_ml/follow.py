"""Following a run until it ends: what Airflow says, and how far the training of the moment is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from zdm_ml.airflow_api import AirflowApi, AirflowUnreachableError
from zdm_ml.errors import StackError
from zdm_ml.files import read_json
from zdm_ml.pipeline.workspace import safe_run_id

ENDED = {"success", "failed"}
DONE = {"success", "skipped", "failed", "upstream_failed", "removed"}
ACTIVE = {"running", "restarting", "up_for_retry", "deferred"}
ASKING = "awaiting_input"
PATIENCE_SECONDS = 150.0
POLL_SECONDS = 1.0

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Task:
    """A task instance; `seconds` is how long its last try took or has been running."""

    name: str
    state: str
    attempt: int = 1
    seconds: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment; `training` is the progress file of its running stage, if any."""

    dag: str
    run_id: str
    state: str
    tasks: tuple[Task, ...] = ()
    training: dict[str, Any] | None = None
    elapsed: float = 0.0
    trouble: str = ""

    @property
    def done(self) -> int:
        """How many tasks have ended, however they did."""
        return sum(task.state in DONE for task in self.tasks)

    @property
    def active(self) -> list[Task]:
        """The tasks that are at work or waiting for their next try."""
        return [task for task in self.tasks if task.state in ACTIVE]

    @property
    def failed(self) -> list[str]:
        """The tasks that failed themselves."""
        return [task.name for task in self.tasks if task.state == "failed"]

    @property
    def asking(self) -> list[str]:
        """The tasks that wait for a person's answer, which may take days."""
        return [task.name for task in self.tasks if task.state == ASKING]

    def task(self, name: str) -> Task | None:
        """Return a task by name."""
        return next((task for task in self.tasks if task.name == name), None)

    def describe(self, task: Task) -> str:
        """Return a running task with its model's epoch and percentage where they are known."""
        words = [task.name]
        if task.state == "up_for_retry":
            words.append(f"waits for try {task.attempt + 1}")
        elif task.attempt > 1:
            words.append(f"try {task.attempt}")
        training = self.training or {}
        if str(training.get("stage", "")).replace("@", ".") == task.name:
            if training.get("epochs"):
                words.append(f"epoch {training.get('epoch')}/{training['epochs']}")
            if training.get("percent") is not None:
                words.append(f"{float(training['percent']):.0f} %")
        return "  ".join(words)


class View(Protocol):
    """Where snapshots are shown."""

    def show(self, snapshot: Snapshot) -> None:
        """Show a run as it is; called about once per second."""


class Follower:
    """Polls Airflow, sits out short outages of its API server, and feeds a view."""

    def __init__(self, api: AirflowApi, progress: Path, view: View, patience: float | None = None):
        self.api = api
        self.progress = progress
        self.view = view
        self.patience = PATIENCE_SECONDS if patience is None else patience
        self.begin = time.monotonic()
        self.latest: Snapshot | None = None

    def follow(self, dag: str, run_id: str) -> Snapshot:
        """Return the run as it ended, or as it is once it waits for a person."""
        self.latest = Snapshot(dag, run_id, "queued")
        while True:
            self.latest = self.patiently(lambda: self._look(dag, run_id))
            self.view.show(self.latest)
            if self.latest.state in ENDED or self.latest.asking:
                return self.latest
            time.sleep(POLL_SECONDS)

    def find_caused(self, dag: str, cause: str, seconds: float = 60.0) -> str | None:
        """Return the run of `dag` that the assets of run `cause` started; wait for it a while."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.patiently(lambda: self._caused_now(dag, cause))
            if found is not None:
                return found
            time.sleep(POLL_SECONDS)
        return None

    def _caused_now(self, dag: str, cause: str) -> str | None:
        known = (str(run["dag_run_id"]) for run in self.api.runs(dag))
        return next((run for run in known if cause in self.api.caused_by(dag, run)), None)

    def patiently(self, ask: Callable[[], Answer]) -> Answer:
        """Return the answer, however often it takes to get one within the follower's patience."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return ask()
            except AirflowUnreachableError as error:
                if time.monotonic() > deadline:
                    raise StackError(
                        f"{error.problem}, for {self.patience:.0f} s by now",
                        hint="the run itself may go on: `zdm status` shows the stack, `zdm up` "
                        "starts what is missing, Airflow's page of the DAG shows the run",
                    ) from error
                if self.latest is not None:
                    elapsed = time.monotonic() - self.begin
                    self.latest = replace(self.latest, trouble=error.problem, elapsed=elapsed)
                    self.view.show(self.latest)
                time.sleep(POLL_SECONDS)

    def _look(self, dag: str, run_id: str) -> Snapshot:
        state = str(self.api.run(dag, run_id)["state"])
        tasks = tuple(_task(entry) for entry in self.api.tasks(dag, run_id))
        try:
            training = read_json(self.progress / f"{safe_run_id(run_id)}.json")
        except (OSError, ValueError):
            training = None
        elapsed = time.monotonic() - self.begin
        return Snapshot(dag, run_id, state, tasks, training, elapsed)


def _task(entry: dict[str, Any]) -> Task:
    return Task(
        name=str(entry["task_id"]),
        state=str(entry["state"] or "waiting"),
        attempt=int(entry.get("try_number") or 1),
        seconds=float(entry.get("duration") or 0.0),
    )
