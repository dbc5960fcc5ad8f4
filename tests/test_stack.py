"""What a stack is made of, and what it refuses; the real one runs in tests/integration."""

from __future__ import annotations

import configparser
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ports import stack_ports

from zdm_ml.components import (
    child_environment,
    describe_stack,
    mark_set_up,
    password,
    write_airflow_config,
)
from zdm_ml.errors import StackError
from zdm_ml.settings import Settings, load_settings
from zdm_ml.stack import check_health, down, port_is_free, up


@pytest.fixture
def settings(project: Path, tmp_path: Path) -> Settings:
    """A stack of its own on free ports."""
    return load_settings({"ZDM_HOME": str(tmp_path / "home"), **stack_ports()}, root=project)


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize("name", ["airflow", "mlflow", "inference"])
def test_port_in_use_is_named_with_its_variable(
    settings: Settings, busy_port: int, name: str
) -> None:
    taken = replace(settings, **{f"{name}_port": busy_port})  # type: ignore[arg-type] # by name

    with pytest.raises(StackError, match=rf"port {busy_port}.*{name}") as caught:
        up(taken, {})

    assert f"ZDM_{name.upper()}_PORT" in caught.value.hint
    assert not (taken.home / "stack.json").exists()


def test_down_without_a_stack_stops_nothing(settings: Settings) -> None:
    assert down(settings) == 0


def test_health_names_every_server_that_does_not_answer(settings: Settings) -> None:
    health = check_health(settings, timeout=0.5)

    assert not health.healthy
    for name in ("airflow", "mlflow", "inference", "supervisor"):
        assert name in health.summary


def test_a_free_port_is_free(settings: Settings, busy_port: int) -> None:
    assert port_is_free(settings.airflow_port)
    assert not port_is_free(busy_port)


def test_secrets_are_kept_and_for_the_owner_alone(settings: Settings) -> None:
    write_airflow_config(settings)
    folder = settings.home / "airflow"
    first = (folder / "airflow.cfg").read_text(), password(settings)

    write_airflow_config(settings)

    assert ((folder / "airflow.cfg").read_text(), password(settings)) == first
    for name in ("airflow.cfg", "secrets.json", "passwords.json"):
        assert (folder / name).stat().st_mode & 0o077 == 0


def test_airflow_listens_on_loopback_and_tells_its_tasks_the_port(settings: Settings) -> None:
    write_airflow_config(settings)
    config = configparser.RawConfigParser()
    config.read(settings.home / "airflow" / "airflow.cfg")

    url = f"http://127.0.0.1:{settings.airflow_port}"
    assert config["api"]["host"] == "127.0.0.1"
    assert config["api"]["base_url"] == url
    assert config["core"]["execution_api_server_url"] == f"{url}/execution/"
    assert config["core"]["load_examples"] == "False"


def test_no_component_opens_a_port_beyond_the_three(settings: Settings) -> None:
    commands = {entry["name"]: entry["command"] for entry in describe_stack(settings)["components"]}

    assert "--skip-serve-logs" in commands["scheduler"]
    assert "--skip-serve-logs" in commands["triggerer"]
    assert "127.0.0.1" in commands["mlflow"]


def test_databases_are_migrated_once_per_version(settings: Settings) -> None:
    write_airflow_config(settings)
    assert len(describe_stack(settings)["setup"]) == 2

    mark_set_up(settings)

    assert describe_stack(settings)["setup"] == []


def test_a_tracking_server_elsewhere_is_used_instead_of_an_own_one(settings: Settings) -> None:
    elsewhere = replace(settings, mlflow_uri="http://mlflow.example:5000")

    stack = describe_stack(elsewhere)

    assert "mlflow" not in {entry["name"] for entry in stack["components"]}


def test_children_inherit_only_what_is_listed(settings: Settings) -> None:
    environ = {
        "PATH": "/bin",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "PYTHONPATH": "/elsewhere",
        "ZDM_RUN_ID": "other",
        "CUDA_VISIBLE_DEVICES": "1",
        "ZDM_WEIGHTS_DIR": "/weights",
    }

    child = child_environment(settings, environ)

    assert {"AIRFLOW__CORE__EXECUTOR", "PYTHONPATH", "ZDM_RUN_ID"}.isdisjoint(child)
    assert child["CUDA_VISIBLE_DEVICES"] == "1"
    assert child["ZDM_WEIGHTS_DIR"] == "/weights"
    assert child["PATH"].endswith(":/bin")
    assert child["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_a_task_does_not_run_the_persons_bashrc(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("echo bashrc\n")
    environ = child_environment(settings, {"HOME": str(tmp_path), "PATH": os.environ["PATH"]})
    # As Airflow starts a task: standard input is a socket.
    ours, theirs = socket.socketpair()

    with ours, theirs:
        done = subprocess.run(
            ["bash", "-c", "echo task"], env=environ, stdin=theirs, capture_output=True, text=True
        )

    assert done.stdout.split() == ["task"]


def test_every_user_of_airflow_has_a_password_and_admin_stays_admin(settings: Settings) -> None:
    several = replace(settings, airflow_users={"anna": "user", "admin": "viewer"})

    write_airflow_config(settings)
    admin = password(settings)
    write_airflow_config(several)

    config = configparser.RawConfigParser()
    config.read(settings.home / "airflow" / "airflow.cfg")
    assert config["core"]["simple_auth_manager_users"] == "anna:user,admin:admin"
    assert password(several) == admin != password(several, "anna")
    assert (settings.home / "airflow" / "passwords.json").stat().st_mode & 0o077 == 0
