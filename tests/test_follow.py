"""Following runs, with a stand-in for Airflow that answers from a script."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

import zdm_ml.follow
from zdm_ml.airflow_api import AirflowApi, AirflowUnreachableError
from zdm_ml.cli.progress import LineView, LiveView
from zdm_ml.errors import StackError
from zdm_ml.files import write_json
from zdm_ml.follow import Follower, Snapshot

AWAY = AirflowUnreachableError("Airflow does not answer at http://127.0.0.1:1")


class ScriptedApi:
    """Gives one scripted answer per look: a run's state and its tasks, or an error."""

    def __init__(self, *looks: tuple[str, dict[str, str]] | Exception):
        self.looks: Iterator[tuple[str, dict[str, str]] | Exception] = iter(looks)
        self.now: dict[str, str] = {}
        self.promotions: list[tuple[str, str]] = []

    def run(self, dag: str, run_id: str) -> dict[str, Any]:
        look = next(self.looks)
        if isinstance(look, Exception):
            raise look
        state, self.now = look
        return {"state": state}

    def tasks(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        return [
            {"task_id": name, "state": state, "try_number": 1, "duration": 2.0}
            for name, state in self.now.items()
        ]

    def runs(self, dag: str) -> list[dict[str, Any]]:
        return [{"dag_run_id": run} for run, _ in self.promotions]

    def caused_by(self, dag: str, run_id: str) -> list[str]:
        return [cause for run, cause in self.promotions if run == run_id]


class Recorder:
    """A view that keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[Snapshot] = []

    def show(self, snapshot: Snapshot) -> None:
        self.shown.append(snapshot)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll without a second between looks."""
    monkeypatch.setattr(zdm_ml.follow, "POLL_SECONDS", 0.01)


def follower(api: ScriptedApi, progress: Path, view: Any, patience: float = 5) -> Follower:
    return Follower(cast(AirflowApi, api), progress, view, patience)


def test_run_is_followed_to_its_end(tmp_path: Path) -> None:
    api = ScriptedApi(
        ("queued", {}),
        ("running", {"plan": "running"}),
        ("success", {"plan": "success", "audit": "skipped"}),
    )

    ended = follower(api, tmp_path, Recorder()).follow("retrain", "r1")

    assert ended.state == "success"
    assert ended.done == 2


def test_short_outage_is_sat_out_and_shown(tmp_path: Path) -> None:
    api = ScriptedApi(("running", {}), AWAY, AWAY, ("failed", {"plan": "failed"}))
    view = Recorder()

    ended = follower(api, tmp_path, view).follow("retrain", "r1")

    assert ended.failed == ["plan"]
    assert [bool(snapshot.trouble) for snapshot in view.shown] == [False, True, True, False]


def test_long_outage_ends_with_the_next_step(tmp_path: Path) -> None:
    api = ScriptedApi(*[AWAY] * 100)

    with pytest.raises(StackError, match="does not answer") as caught:
        follower(api, tmp_path, Recorder(), patience=0.1).follow("retrain", "r1")

    assert "zdm up" in caught.value.hint


def test_run_that_waits_for_a_person_is_not_followed_further(tmp_path: Path) -> None:
    api = ScriptedApi(
        ("running", {"gate": "running"}),
        ("running", {"gate": "success", "approval": "awaiting_input"}),
    )

    left = follower(api, tmp_path, Recorder()).follow("promote", "p1")

    assert (left.state, left.asking) == ("running", ["approval"])


def test_running_training_is_described_with_epoch_and_percentage(tmp_path: Path) -> None:
    progress = {"stage": "train@luna", "epoch": 2, "epochs": 8, "percent": 31.4}
    write_json(tmp_path / "manual-1.json", progress)
    api = ScriptedApi(("success", {"train.luna": "running", "split": "running"}))

    shown = follower(api, tmp_path, Recorder()).follow("retrain", "manual:1")

    assert [shown.describe(task) for task in shown.active] == [
        "train.luna  epoch 2/8  31 %",
        "split",
    ]


def test_promotion_is_found_by_the_run_that_caused_it(tmp_path: Path) -> None:
    api = ScriptedApi()
    api.promotions = [("p3", "r9"), ("p2", "r1")]

    found = follower(api, tmp_path, Recorder()).find_caused("promote", "r1", seconds=1)

    assert found == "p2"


def test_absent_promotion_is_none(tmp_path: Path) -> None:
    api = ScriptedApi()
    api.promotions = [("p3", "r9")]

    found = follower(api, tmp_path, Recorder()).find_caused("promote", "r1", seconds=0.05)

    assert found is None


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100)


def text_of(console: Console) -> list[str]:
    return cast(io.StringIO, console.file).getvalue().splitlines()


def test_log_gets_one_line_per_change_and_tenth(tmp_path: Path, console: Console) -> None:
    view = LineView(console)
    for percent in (11, 12, 19, 21):
        write_json(tmp_path / "r1.json", {"stage": "train@luna", "percent": percent})
        api = ScriptedApi(("success", {"train.luna": "running", "audit": "skipped"}))
        follower(api, tmp_path, view).follow("retrain", "r1")

    lines = [line.split("  ", 1)[1] for line in text_of(console)]

    assert lines == ["train.luna  10 %", "train.luna  20 %"]


def test_terminal_view_keeps_a_line_for_each_task_that_ended(
    tmp_path: Path, console: Console
) -> None:
    api = ScriptedApi(("running", {"plan": "running"}), ("failed", {"plan": "failed"}))

    with LiveView(console) as view:
        follower(api, tmp_path, view).follow("retrain", "r1")

    assert "plan  failed  0:02" in text_of(console)
