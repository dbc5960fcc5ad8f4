"""The real stack: started, hurt and stopped. Its tests share one stack and run in file order."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from foundry import Foundry
from mlflow_server import MlflowServer
from ports import stack_environment

from zdm_ml.airflow_api import airflow_api
from zdm_ml.components import USER
from zdm_ml.errors import StackError
from zdm_ml.files import read_json
from zdm_ml.settings import Settings, load_settings
from zdm_ml.stack import check_health, down, port_is_free, up
from zdm_ml.supervisor import stack_processes, supervisor_process

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
]

SLEEPER = """
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG("sleeper", schedule=None, is_paused_upon_creation=False):
    BashOperator(task_id="sleep", bash_command="exec sleep 3599")
"""


@pytest.fixture(scope="module")
def environ(
    make_checkout: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The environment of a shell that uses a checkout, state folder and ports of its own."""
    root = make_checkout()
    (root / "dags" / "sleeper.py").write_text(SLEEPER)
    return stack_environment(root, tmp_path_factory.mktemp("state") / "home")


@pytest.fixture(scope="module")
def settings(environ: dict[str, str]) -> Settings:
    return load_settings(environ)


@pytest.fixture(scope="module")
def stack(settings: Settings, environ: dict[str, str]) -> Iterator[float]:
    """A started stack; the value is how many seconds that took."""
    begin = time.monotonic()
    try:
        assert up(settings, environ)
        yield time.monotonic() - begin
    finally:
        down(settings)


def wait_for(condition: Callable[[], Any], seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(StackError):
            if found := condition():
                return found
        time.sleep(0.3)
    raise AssertionError("it did not happen in time")


def zdm(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "zdm"), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        cwd=environ["ZDM_ROOT"],
    )


def sleeps(settings: Settings) -> list[psutil.Process]:
    """Return the processes of the task that sleeps."""
    return [p for p in stack_processes(settings.home) if p.cmdline() == ["sleep", "3599"]]


def test_stack_is_healthy_within_a_minute(stack: float, settings: Settings) -> None:
    assert stack < 60
    assert check_health(settings).healthy


def test_second_up_returns_at_once(
    stack: float, settings: Settings, environ: dict[str, str]
) -> None:
    begin = time.monotonic()

    started = up(settings, environ)

    assert not started
    assert time.monotonic() - begin < 10


def test_fresh_stack_has_exactly_the_runs_it_was_asked_for(
    stack: float, settings: Settings
) -> None:
    api = airflow_api(settings)
    for dag in ("retrain", "promote", "sleeper"):
        wait_for(lambda dag=dag: api.dag(dag))

    wait_for(lambda: api.trigger("sleeper", "asked-for", {}))
    wait_for(lambda: sleeps(settings))

    assert api.import_errors() == []
    assert api.runs("retrain") == api.runs("promote") == []
    assert [run["dag_run_id"] for run in api.runs("sleeper")] == ["asked-for"]


def test_same_run_asked_for_twice_is_one_run(stack: float, settings: Settings) -> None:
    api = airflow_api(settings)

    wait_for(lambda: api.trigger("sleeper", "asked-for", {}))

    assert len(api.runs("sleeper")) == 1


@pytest.mark.parametrize(
    "conf",
    [{"profile": "best"}, {"models": []}, {"models": ["lenet"]}, {"seed": -1}, {"force": "yes"}],
)
def test_form_refuses_bad_values_over_the_api(
    stack: float, settings: Settings, conf: dict[str, Any]
) -> None:
    api = airflow_api(settings)

    with pytest.raises(StackError, match=next(iter(conf))):
        api.trigger("retrain", "never", conf)

    assert api.runs("retrain") == []


def test_every_port_is_on_loopback(stack: float, settings: Settings) -> None:
    listening = [
        connection.laddr
        for process in stack_processes(settings.home)
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]

    expected = {settings.airflow_port, settings.mlflow_port, settings.inference_port}
    assert {address.port for address in listening} == expected
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_status_is_one_json_object(stack: float, environ: dict[str, str]) -> None:
    done = zdm(environ, "status", "--json")

    status = json.loads(done.stdout)
    assert status["healthy"] is True
    assert set(status["urls"]) == {"airflow", "mlflow", "inference"}
    assert status["champion"] is None
    assert status["last_run"] is None


def test_dead_servers_are_restarted_and_the_running_task_goes_on(
    stack: float, settings: Settings
) -> None:
    task = {process.pid for process in sleeps(settings)}
    names = ("mlflow", "api-server", "inference")
    dead = {name: read_json(settings.home / "components.json")[name]["pid"] for name in names}

    for pid in dead.values():
        os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        found = read_json(settings.home / "components.json")
        return all(found.get(name, {"pid": pid})["pid"] != pid for name, pid in dead.items())

    wait_for(replaced)
    wait_for(lambda: check_health(settings).healthy)
    assert {process.pid for process in sleeps(settings)} == task
    assert airflow_api(settings).run("sleeper", "asked-for")["state"] == "running"


def test_task_of_a_dead_scheduler_does_not_outlive_it(stack: float, settings: Settings) -> None:
    before = {process.pid for process in sleeps(settings)}
    scheduler = read_json(settings.home / "components.json")["scheduler"]["pid"]

    os.kill(scheduler, signal.SIGKILL)

    wait_for(lambda: before.isdisjoint(process.pid for process in sleeps(settings)))
    wait_for(lambda: check_health(settings).healthy)


def test_dag_rollback_keeps_what_was_typed_and_who_triggered_it(
    stack: float, settings: Settings, tmp_path: Path
) -> None:
    server = MlflowServer(tmp_path, settings.mlflow_port)
    foundry = Foundry(tmp_path, settings.root, server, settings)
    foundry.champions(2)
    api = airflow_api(settings)
    wait_for(lambda: api.dag("rollback"))
    typed = "escapes; 100 % 'quoted' \"$(touch typed)\" `id`\nline 2 {{ 1 }} --to 7"

    wait_for(lambda: api.trigger("rollback", "back", {"reason": typed}))
    wait_for(lambda: api.run("rollback", "back")["state"] in ("success", "failed"), seconds=240)

    result = api.result("rollback", "back", "rollback")
    entry = foundry.decisions()[-1]
    assert result is not None
    assert (result["decision"], foundry.alias("champion")) == ("rolled_back", "1")
    assert (entry["reason"], entry["who"]) == (typed, USER)
    assert api.run("rollback", "back")["state"] == "success"


@pytest.mark.parametrize("conf", [{}, {"reason": " "}, {"reason": "r", "version": 0}])
def test_form_of_rollback_refuses_to_start_without_a_reason(
    stack: float, settings: Settings, conf: dict[str, Any]
) -> None:
    api = airflow_api(settings)
    wait_for(lambda: api.dag("rollback"))

    with pytest.raises(StackError, match="refused"):
        api.trigger("rollback", "never", conf)


def test_ctrl_c_stops_following_and_leaves_the_stack(
    stack: float, settings: Settings, environ: dict[str, str]
) -> None:
    imported = zdm(environ, "data", "import", "synthetic", "--parts", "12", "--views", "4")
    assert imported.returncode == 0, imported.stderr
    command = [str(Path(sys.executable).parent / "zdm"), "run", "--profile", "smoke"]
    with subprocess.Popen(
        command, env=environ, stderr=subprocess.PIPE, text=True, cwd=settings.root
    ) as following:
        assert following.stderr is not None
        seen = []
        for line in following.stderr:
            seen.append(line)
            if line.startswith("[") and "plan" in line:
                break
        following.send_signal(signal.SIGINT)
        seen += following.stderr.readlines()

    assert following.returncode == 130, seen
    assert any("make down" in line for line in seen)
    assert check_health(settings).healthy
    assert len(airflow_api(settings).runs("retrain")) == 1


def test_up_after_a_killed_supervisor_ends_what_it_left_and_starts_anew(
    stack: float, settings: Settings, environ: dict[str, str]
) -> None:
    supervisor = supervisor_process(settings.home)
    assert supervisor is not None
    supervisor.kill()
    left = {process.pid for process in stack_processes(settings.home)} - {supervisor.pid}

    assert up(settings, environ)

    assert left
    assert left.isdisjoint(process.pid for process in stack_processes(settings.home))


def test_down_leaves_no_process_and_no_port(stack: float, settings: Settings) -> None:
    down(settings)

    assert stack_processes(settings.home) == []
    for port in (settings.airflow_port, settings.mlflow_port, settings.inference_port):
        assert port_is_free(port)
    assert not (settings.home / "stack.json").exists()
