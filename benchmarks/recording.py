"""The figure of records: a training with MLflow beside the same without."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import requests
from bench import Bench
from table import Line, compare, in_turns, seconds
from trainings import fresh_net, run_engine

from zdm_ml.files import sha256_json
from zdm_ml.recipes import Recipe
from zdm_ml.registry.connection import connect
from zdm_ml.registry.runs import Training, find_nested, start_parent
from zdm_ml.registry.tracking import Tracking
from zdm_ml.training.loop import EpochRecord
from zdm_ml.training.sides import Side

MODEL = "luna"
STARTING_SECONDS = 180.0
ENDING_SECONDS = 20.0


def with_mlflow(bench: Bench) -> list[Line]:
    """Wall time of a training that a real server records live, over the same unrecorded."""
    # Epochs as long as the recipe's on a CPU; on a GPU so many that a training lasts.
    images, epochs = bench.scaled(toy=16, cpu=960, cuda=8192), bench.scaled(toy=1, cpu=8, cuda=8)
    recipe = replace(bench.recipe(MODEL, "modern", epochs=epochs), images_per_epoch=images)
    rows = bench.drawn(min(images, 480), "train"), bench.drawn(32, "val")
    sides = bench.sides(recipe.input_size, *rows)
    with mlflow_server(bench.scratch) as uri:
        started = time.process_time()
        parent = start_parent(uri, "bench", {}, {})
        imported = time.process_time() - started
        if parent is None:
            raise RuntimeError(f"MLflow at {uri} takes no run")
        work = _Recorded(bench, sides, recipe, Tracking(uri, parent))
        if not bench.toy:
            work.plain(0)
        pairs = in_turns(work.recorded, work.plain, bench.repeats)
    figure = "wall time with MLflow over without: luna"
    unrecorded = [plain for _, plain in pairs]
    note = (
        f"recipe {recipe.name}, {epochs} epochs of {images} images, a record per epoch, server on "
        f"the same cores; {statistics.median(a - b for a, b in pairs):.2f} s more, where those "
        f"without differ by {max(unrecorded) - min(unrecorded):.2f} s; the goal is a ceiling; "
        f"importing mlflow took {imported:.1f} CPU s before"
    )
    goal = bench.goal(cpu=1.01, cuda=1.02)
    label = bench.label
    return [compare(figure, pairs, goal, label, times=False, ceiling=True, note=note)]


@dataclass(frozen=True)
class _Recorded:
    """One training that runs with a record and without; both return seconds."""

    bench: Bench
    sides: list[Side]
    recipe: Recipe
    tracking: Tracking

    def plain(self, repeat: int) -> float:
        """Train without a record."""
        return seconds(lambda: self._train(lambda record: None))

    def recorded(self, repeat: int) -> float:
        """Train with a record that is complete at the end."""
        training = Training(MODEL, "quick", f"bench-{repeat}", "0" * 32)

        def work() -> None:
            with self.tracking.model_run(training) as run:
                self._train(run.epoch)
                run.finish(model_digest=sha256_json(repeat))

        taken = seconds(work)
        self._check(training)
        return taken

    def _train(self, on_epoch: Callable[[EpochRecord], None]) -> None:
        net = fresh_net(MODEL, self.recipe, 0)
        run_engine(self.bench, MODEL, net, self.sides, self.recipe, 0, on_epoch)

    def _check(self, training: Training) -> None:
        """Raise unless the server has every epoch: a record that failed costs nothing."""
        client = connect(str(self.tracking.uri))
        found = find_nested(client, training)
        steps = client.get_metric_history(found.info.run_id, "train_loss") if found else []
        if found is None or found.info.status != "FINISHED" or len(steps) != self.recipe.epochs:
            raise RuntimeError(f"MLflow has {len(steps)} of {self.recipe.epochs} epochs")


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Run MLflow on a free port with everything in `folder`, and yield its address."""
    database, port = f"sqlite:///{folder / 'mlflow.db'}", _free_port()
    environ = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    mlflow = [sys.executable, "-m", "mlflow"]
    subprocess.run(
        [*mlflow, "db", "upgrade", database], env=environ, check=True, capture_output=True
    )
    command = [
        *(*mlflow, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts")),
    ]
    with (folder / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(
            command, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield _answering(f"http://127.0.0.1:{port}", server)
    finally:
        _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server with its workers, by force if need be."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(ENDING_SECONDS)
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _answering(uri: str, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + STARTING_SECONDS
    with requests.Session() as session:
        session.trust_env = False  # a proxy is not meant for this machine
        while time.monotonic() < deadline and server.poll() is None:
            with suppress(requests.RequestException):
                if session.get(f"{uri}/health", timeout=1).ok:
                    return uri
            time.sleep(0.2)
    raise RuntimeError("the MLflow server did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
