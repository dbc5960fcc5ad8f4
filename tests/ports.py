"""Ports and environments for servers that tests start."""

from __future__ import annotations

import itertools
import os
import socket
from contextlib import suppress
from pathlib import Path

# Below the range from which outgoing connections get theirs: one of those could take a free port
# before the server of the test has it. Each worker of pytest has a part of its own.
FIRST, WORKERS, PER_WORKER = 10_000, 11, 2_000
_steps = itertools.count(os.getpid())


def free_port() -> int:
    """Return a port of this worker's part that nothing listened on a moment ago."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    while True:
        port = FIRST + worker * PER_WORKER + next(_steps) % PER_WORKER
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def stack_ports() -> dict[str, str]:
    """Return the variables that give a stack's servers free ports."""
    return {f"ZDM_{name}_PORT": str(free_port()) for name in ("AIRFLOW", "MLFLOW", "INFERENCE")}


def stack_environment(root: Path, home: Path) -> dict[str, str]:
    """Return the environment of a shell that uses a checkout, state folder and ports of its own."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ZDM_", "AIRFLOW", "MLFLOW"))
    }
    # At a quarter of an hour an intake would run beside what the tests ask for.
    quiet = {"ZDM_INTAKE_SCHEDULE": "0 0 1 1 *"}
    return {**inherited, **stack_ports(), **quiet, "ZDM_ROOT": str(root), "ZDM_HOME": str(home)}
