"""The stack on one machine: start it, stop it without a trace, say how it is."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import requests
from filelock import FileLock

from zdm_ml.airflow_api import airflow_api
from zdm_ml.components import (
    child_environment,
    describe_stack,
    mark_set_up,
    write_airflow_config,
)
from zdm_ml.detached import detach
from zdm_ml.errors import StackError
from zdm_ml.files import read_json, write_json
from zdm_ml.settings import HOST, Settings, make_home
from zdm_ml.supervisor import end_processes, stack_processes, supervisor_process

logger = logging.getLogger(__name__)

GPU_POOL = "gpu"
START_SECONDS = 120.0
STOP_SECONDS = 25.0


@dataclass(frozen=True)
class Health:
    """What is wrong with each server, by name; an empty text means nothing."""

    problems: Mapping[str, str]

    @property
    def healthy(self) -> bool:
        """True when nothing is wrong with any of them."""
        return not any(self.problems.values())

    @property
    def summary(self) -> str:
        """Every problem on one line."""
        return "; ".join(f"{name}: {text}" for name, text in self.problems.items() if text)


def urls(settings: Settings) -> dict[str, str]:
    """Return where the three servers answer."""
    return {
        "airflow": settings.airflow_url,
        "mlflow": settings.mlflow_uri,
        "inference": settings.inference_url,
    }


def check_health(settings: Settings, timeout: float = 3.0) -> Health:
    """Ask every server how it is."""
    found = {
        "airflow": _airflow_problem(settings, timeout),
        "mlflow": _http_problem(f"{settings.mlflow_uri}/health", timeout),
        "inference": _http_problem(f"{settings.inference_url}/live", timeout),
    }
    if supervisor_process(settings.home) is None:
        found["supervisor"] = "not running, so nothing restarts a dead component"
    return Health(found)


def _http_problem(url: str, timeout: float) -> str:
    try:
        with requests.Session() as session:
            session.trust_env = False
            status = session.get(url, timeout=timeout).status_code
    except requests.RequestException:
        return "does not answer"
    return "" if status == requests.codes.ok else f"HTTP {status}"


def _airflow_problem(settings: Settings, timeout: float) -> str:
    try:
        health = airflow_api(settings, timeout).health()
    except StackError:
        return "does not answer"
    parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    bad = [name for name in parts if (health.get(name) or {}).get("status") != "healthy"]
    return f"{', '.join(bad)} not healthy" if bad else ""


def up(settings: Settings, environ: Mapping[str, str], seconds: float = START_SECONDS) -> bool:
    """Start the stack and wait until every server is healthy; return whether it was started."""
    make_home(settings.home)
    with FileLock(settings.home / "up.lock"):
        running = supervisor_process(settings.home) is not None
        if running:
            _check_same_ports(settings)
        else:
            _start(settings, environ)
        _wait_until_healthy(settings, seconds)
        mark_set_up(settings)
        airflow_api(settings).ensure_pool(GPU_POOL, settings.gpu_slots)
    return not running


def _start(settings: Settings, environ: Mapping[str, str]) -> None:
    leftovers = stack_processes(settings.home)
    if leftovers:
        logger.warning("ending %d processes of a stack that lost its supervisor", len(leftovers))
        end_processes(leftovers, 5)
    for name in ("airflow", "mlflow", "inference"):
        _check_port(settings, name)
    write_airflow_config(settings)
    write_json(settings.home / "stack.json", describe_stack(settings))
    log = settings.home / "logs" / "supervisor.log"
    log.parent.mkdir(exist_ok=True)
    pid = detach(
        [sys.executable, "-m", "zdm_ml.supervisor", str(settings.home)],
        child_environment(settings, environ),
        log,
    )
    deadline = time.monotonic() + 20
    while supervisor_process(settings.home) is None:
        if os.waitpid(pid, os.WNOHANG) != (0, 0) or time.monotonic() > deadline:
            raise StackError("the supervisor did not start", hint=f"read {log}")
        time.sleep(0.1)


def _ports(settings: Settings) -> dict[str, int]:
    ports: dict[str, int] = describe_stack(settings)["ports"]
    return ports


def _check_same_ports(settings: Settings) -> None:
    used = read_json(settings.home / "stack.json")["ports"]
    if used != _ports(settings):
        wanted = ", ".join(f"{name} {port}" for name, port in used.items())
        raise StackError(
            f"the stack runs on other ports already: {wanted}",
            hint="`zdm down` first, or unset ZDM_AIRFLOW_PORT, ZDM_MLFLOW_PORT, ZDM_INFERENCE_PORT",
        )


def _check_port(settings: Settings, name: str) -> None:
    port, variable = _ports(settings)[name], f"ZDM_{name.upper()}_PORT"
    if port_is_free(port):
        return
    raise StackError(
        f"port {port}, wanted for {name}, is in use by another program",
        hint=f"stop it, or choose another port: {variable}={port + 100}",
    )


def port_is_free(port: int) -> bool:
    """Return whether a server could listen on that port of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _wait_until_healthy(settings: Settings, seconds: float) -> None:
    begin, known = time.monotonic(), set[str]()
    while True:
        health = check_health(settings)
        for name, problem in health.problems.items():
            if not problem and name not in known:
                known.add(name)
                logger.info("%s healthy after %.0f s", name, time.monotonic() - begin)
        if health.healthy:
            return
        logs = settings.home / "logs"
        if "supervisor" in health.problems:
            raise StackError(
                f"the stack stopped: {last_line(logs / 'supervisor.log')}",
                hint=f"read the logs in {logs}",
            )
        if time.monotonic() - begin > seconds:
            raise StackError(
                f"not healthy after {seconds:.0f} s: {health.summary}",
                hint=f"read the logs in {logs}; `zdm status` looks again, `zdm down` stops all",
            )
        time.sleep(0.5)


def last_line(path: Path) -> str:
    """Return the last line of a log, or nothing."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def down(settings: Settings) -> int:
    """Stop every process of the stack, tasks included; return how many there were."""
    processes = stack_processes(settings.home)
    supervisor = supervisor_process(settings.home)
    if supervisor is not None:
        end_processes([supervisor], STOP_SECONDS)
    end_processes(stack_processes(settings.home), 5)
    left = stack_processes(settings.home)
    if left:
        raise StackError(
            f"processes that do not end: {', '.join(str(process.pid) for process in left)}",
            hint="look at them with `ps`; a disk or GPU that hangs can hold one",
        )
    for name in ("stack.json", "supervisor.json", "components.json"):
        (settings.home / name).unlink(missing_ok=True)
    return len(processes)
