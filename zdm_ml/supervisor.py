"""The process that starts the stack's components and restarts those that die.

`zdm up` writes what to run into `stack.json` and starts `python -m zdm_ml.supervisor <home>`.
Every process of a stack, down to a training started by a task, carries `ZDM_STACK=<home>` in its
environment: that finds it again whatever became of its parents.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from zdm_ml.files import read_json, write_json

logger = logging.getLogger(__name__)

STACK_MARK = "ZDM_STACK"
COMPONENT_MARK = "ZDM_COMPONENT"
LOG_BYTES = 20_000_000
LONGEST_WAIT = 30.0
STEADY_SECONDS = 60.0


@dataclass
class Component:
    """One long-running program; it waits twice as long before each restart in a row."""

    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    failures: int = 0
    started: float = 0.0
    due: float = field(default=0.0)

    def wait_before_restart(self) -> float:
        """Return the seconds to wait, counting only failures that followed each other closely."""
        steady = time.monotonic() - self.started > STEADY_SECONDS
        self.failures = 1 if steady else self.failures + 1
        return min(2.0 ** (self.failures - 1), LONGEST_WAIT)


def supervisor_process(home: Path) -> psutil.Process | None:
    """Return the running supervisor of the stack in `home`, never a process that reuses its id."""
    try:
        record = read_json(home / "supervisor.json")
        process = psutil.Process(record["pid"])
        same = process.create_time() == record["created"]
    except (OSError, ValueError, KeyError, psutil.Error):
        return None
    return process if same and process.status() != psutil.STATUS_ZOMBIE else None


def stack_processes(home: Path, component: str | None = None) -> list[psutil.Process]:
    """Return the stack's processes, or one component's, without this one and its ancestors."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [
        process
        for process in psutil.process_iter()
        if process.pid not in own and _carries(process, str(home), component)
    ]


def _carries(process: psutil.Process, home: str, component: str | None) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        environment = process.environ()
    except (psutil.Error, OSError):
        return False
    return environment.get(STACK_MARK) == home and (
        component is None or environment.get(COMPONENT_MARK) == component
    )


def end_processes(processes: Iterable[psutil.Process], seconds: float) -> None:
    """Ask the processes to end, and kill those that are still there after `seconds`."""
    remaining = list(processes)
    for send in (psutil.Process.terminate, psutil.Process.kill):
        for process in remaining:
            with contextlib.suppress(psutil.NoSuchProcess):
                send(process)
        _, remaining = psutil.wait_procs(remaining, timeout=seconds)


class Supervisor:
    """Keeps components running until it is asked to stop."""

    def __init__(self, home: Path, components: Sequence[Component], setup: Sequence[list[str]]):
        self.home = home
        self.components = components
        self.setup = setup
        self.stopping = False

    def run(self) -> int:
        """Run the set-up commands side by side, then the components; return an exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            if not self._set_up():
                return 1
            while not self.stopping:
                for component in self.components:
                    self._tend(component)
                time.sleep(0.25)
            return 0
        finally:
            self._end_all()

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _set_up(self) -> bool:
        running = [self._launch(f"setup-{command[0]}", command) for command in self.setup]
        while any(process.poll() is None for process in running) and not self.stopping:
            time.sleep(0.1)
        failed = [c for c, p in zip(self.setup, running, strict=True) if p.poll() not in (0, None)]
        for command in failed:
            logger.error("set-up failed: %s", " ".join(command))
        return not failed

    def _tend(self, component: Component) -> None:
        if component.process is None:
            if time.monotonic() >= component.due:
                component.process = self._launch(component.name, component.command)
                component.started = time.monotonic()
                self._record()
            return
        code = component.process.poll()
        if code is None:
            return
        wait = component.wait_before_restart()
        logger.warning("%s ended with %d: restart in %.0f s", component.name, code, wait)
        # What it started (workers, tasks) would go on unwatched beside the new one.
        end_processes(stack_processes(self.home, component.name), 3)
        component.process, component.due = None, time.monotonic() + wait
        component.restarts += 1

    def _launch(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        os.putenv(COMPONENT_MARK, name)
        with _log_file(self.home / "logs" / f"{name}.log") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _record(self) -> None:
        running = {
            component.name: {"pid": component.process.pid, "restarts": component.restarts}
            for component in self.components
            if component.process is not None
        }
        write_json(self.home / "components.json", running)

    def _end_all(self) -> None:
        # Airflow's own ones last: a task that ends can still tell the API server that it did.
        servers = {"api-server", "mlflow"}
        processes = stack_processes(self.home)
        late = [p for name in servers for p in stack_processes(self.home, name)]
        end_processes([p for p in processes if p not in late], 6)
        end_processes(stack_processes(self.home), 4)


@contextlib.contextmanager
def _log_file(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    with path.open("ab") as file:
        yield file


def main(home: Path) -> int:
    """Supervise the stack described in `stack.json`, unless another process does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with (home / "supervisor.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.error("another supervisor runs in %s", home)
            return 1
        created = psutil.Process().create_time()
        write_json(home / "supervisor.json", {"pid": os.getpid(), "created": created})
        plan = read_json(home / "stack.json")
        os.chdir(plan["root"])
        components = [Component(**entry) for entry in plan["components"]]
        return Supervisor(home, components, plan["setup"]).run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
