"""The supervisor, with small real programs as components."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from zdm_ml.files import read_json, write_json
from zdm_ml.supervisor import Component, end_processes, stack_processes, supervisor_process

Start = Callable[..., subprocess.Popen[bytes]]

# A program that starts another one in a session of its own, as Airflow's tasks do.
PARENT = "import subprocess, time; subprocess.Popen(['sleep', '600'], start_new_session=True); "
PARENT += "time.sleep(600)"


def wait_for(condition: Callable[[], object], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a supervisor of the given components; nothing of it outlives the test."""

    started: list[subprocess.Popen[bytes]] = []

    def launch(
        setup: list[list[str]] | None = None, **commands: list[str]
    ) -> subprocess.Popen[bytes]:
        components = [{"name": name, "command": command} for name, command in commands.items()]
        plan = {"root": str(tmp_path), "setup": setup or [], "components": components}
        write_json(tmp_path / "stack.json", plan)
        environment = {**os.environ, "ZDM_STACK": str(tmp_path)}
        process = subprocess.Popen(
            [sys.executable, "-m", "zdm_ml.supervisor", str(tmp_path)],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        return process

    yield launch
    supervisor = supervisor_process(tmp_path)
    end_processes([supervisor] if supervisor else [], 15)
    end_processes(stack_processes(tmp_path), 2)
    for process in started:
        process.wait(5)


def pids(home: Path, component: str) -> set[int]:
    return {process.pid for process in stack_processes(home, component)}


def test_killed_component_is_restarted(start: Start, tmp_path: Path) -> None:
    start(server=["sleep", "600"])
    wait_for(lambda: pids(tmp_path, "server"))
    first = pids(tmp_path, "server")

    os.kill(first.pop(), signal.SIGKILL)

    wait_for(lambda: read_json(tmp_path / "components.json")["server"]["restarts"] == 1)
    assert len(pids(tmp_path, "server")) == 1


def test_what_a_dead_component_started_is_ended_before_its_restart(
    start: Start, tmp_path: Path
) -> None:
    start(parent=[sys.executable, "-c", PARENT])
    wait_for(lambda: len(pids(tmp_path, "parent")) == 2)
    before = pids(tmp_path, "parent")
    parent = read_json(tmp_path / "components.json")["parent"]["pid"]

    os.kill(parent, signal.SIGKILL)

    wait_for(lambda: len(pids(tmp_path, "parent") - before) == 2)
    assert pids(tmp_path, "parent").isdisjoint(before)


def test_terminated_supervisor_leaves_no_process(start: Start, tmp_path: Path) -> None:
    supervisor = start(parent=[sys.executable, "-c", PARENT], other=["sleep", "600"])
    wait_for(lambda: len(stack_processes(tmp_path)) == 4)

    supervisor.terminate()

    assert supervisor.wait(20) == 0
    assert stack_processes(tmp_path) == []


def test_processes_of_a_killed_supervisor_are_found_by_their_mark(
    start: Start, tmp_path: Path
) -> None:
    supervisor = start(parent=[sys.executable, "-c", PARENT])
    wait_for(lambda: len(pids(tmp_path, "parent")) == 2)

    supervisor.kill()
    supervisor.wait()

    assert supervisor_process(tmp_path) is None
    assert len(stack_processes(tmp_path)) == 2


def test_second_supervisor_refuses_to_start(start: Start, tmp_path: Path) -> None:
    start(server=["sleep", "600"])
    wait_for(lambda: pids(tmp_path, "server"))

    second = start(server=["sleep", "600"])

    assert second.wait(10) == 1
    assert len(pids(tmp_path, "server")) == 1


def test_failed_set_up_starts_nothing(start: Start, tmp_path: Path) -> None:
    supervisor = start(setup=[["false"]], server=["sleep", "600"])

    assert supervisor.wait(10) == 1
    assert stack_processes(tmp_path) == []


def test_a_reused_process_id_is_not_taken_for_the_supervisor(tmp_path: Path) -> None:
    write_json(tmp_path / "supervisor.json", {"pid": os.getpid(), "created": 1.0})

    assert supervisor_process(tmp_path) is None


def test_restarts_in_a_row_wait_longer_up_to_a_limit() -> None:
    component = Component("server", ["false"], started=time.monotonic())

    waits = [component.wait_before_restart() for _ in range(7)]

    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_a_component_that_ran_for_long_is_restarted_at_once_again() -> None:
    component = Component("server", ["false"], failures=5, started=time.monotonic() - 3600)

    assert component.wait_before_restart() == 1


def test_end_processes_kills_what_ignores_the_request() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; time.sleep(600)"], stdout=subprocess.PIPE
    ) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()

        end_processes([psutil.Process(stubborn.pid)], 0.3)

        assert not psutil.pid_exists(stubborn.pid)
