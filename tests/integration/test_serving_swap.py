"""A real inference server process against a real MLflow server process."""

from __future__ import annotations

import io
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from ports import free_port
from registry_builders import assembled, make_castings, make_run

from zdm_ml.data.images import decode_grey
from zdm_ml.errors import RegistryError
from zdm_ml.loading import load_inspector
from zdm_ml.registry.connection import connect
from zdm_ml.registry.publication import publish
from zdm_ml.registry.runs import ensure_experiment
from zdm_ml.serving.source import RegistrySource
from zdm_ml.settings import REGISTERED_MODEL, load_settings

pytestmark = [
    pytest.mark.integration,
    # MLflow, about its own pyfunc classes, while it saves a model.
    pytest.mark.filterwarnings("ignore:.*type hint:UserWarning"),
]

CLIENTS = 8
SWAPS = 6


def wait_for(fact: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if fact():
                return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


def stop_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run MLflow on a SQLite file; a second call on the same folder finds the same registry."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "mlflow.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **quiet},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/health").is_success)
        yield process
    finally:
        stop_group(process)


@dataclass
class Registry:
    """Two versions behind a running MLflow server, and the times at which the alias moved."""

    folder: Path
    port: int
    versions: tuple[str, str]
    moves: list[tuple[float, float, str]] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def promote(self, version: str) -> None:
        before = time.monotonic()
        connect(self.uri).set_registered_model_alias(REGISTERED_MODEL, "champion", version)
        self.moves.append((before, time.monotonic(), version))

    def withdraw(self) -> None:
        connect(self.uri).delete_registered_model_alias(REGISTERED_MODEL, "champion")

    def was_champion(self, version: str, start: float, end: float) -> bool:
        """Return whether the alias may have named `version` at some time from `start` to `end`."""
        ends = [move[1] for move in self.moves[1:]] + [float("inf")]
        return any(
            name == version and began <= end and ended >= start
            for (began, _, name), ended in zip(self.moves, ends, strict=True)
        )


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    rows = make_castings(folder / "castings")
    with mlflow_server(folder, port):
        client = connect(f"http://127.0.0.1:{port}")
        run = client.create_run(ensure_experiment(client))
        published = []
        for seed in (1, 2):
            root = folder / f"run-{seed}"
            source = make_run(root, folder / "castings", rows, seed=seed)
            package = assembled(folder / f"package-{seed}", root, folder / "castings", rows, source)
            published.append(publish(client, package, run.info.run_id, started="").version)
        yield Registry(folder, port, (published[0], published[1]))


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    url: str
    home: Path

    def version(self) -> str | None:
        answer = httpx.get(f"{self.url}/model")
        return str(answer.json()["version"]) if answer.is_success else None

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def inference_server(project: Path, home: Path, mlflow_uri: str) -> Iterator[Server]:
    """Run `zdm serve` as its users do."""
    port = free_port()
    environ = {
        **os.environ,
        "ZDM_ROOT": str(project),
        "ZDM_HOME": str(home),
        "ZDM_INFERENCE_PORT": str(port),
        "MLFLOW_TRACKING_URI": mlflow_uri,
    }
    code = "from zdm_ml.cli import main; main()"
    home.mkdir(exist_ok=True)
    with (home / "serve.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "serve", "--poll-seconds", "0.2"],
            env=environ,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        server = Server(process, f"http://127.0.0.1:{port}", home)
        wait_for(lambda: httpx.get(f"{server.url}/live").is_success)
        yield server
    finally:
        stop_group(process)


def casting(level: int, kind: str = "PNG", size: tuple[int, int] = (56, 48)) -> bytes:
    pixels = np.random.default_rng(level).normal(level, 20, size[::-1])
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@dataclass(frozen=True)
class Answer:
    start: float
    end: float
    status: int
    version: str
    prediction_id: str


class Load:
    """Clients that send one image after the other until told to stop."""

    def __init__(self, url: str, clients: int) -> None:
        self._url = url
        self._done = threading.Event()
        self.answers: list[Answer] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        images = [casting(60), casting(180, "JPEG")]
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._done.is_set():
                start = time.monotonic()
                try:
                    answer = client.post("/predict", content=images[len(self.answers) % 2])
                    body = answer.json()
                    self.answers.append(
                        Answer(
                            start,
                            time.monotonic(),
                            answer.status_code,
                            body["model"]["version"],
                            body["prediction_id"],
                        )
                    )
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    self.failures.append(repr(error))


@pytest.fixture(scope="module")
def server(
    registry: Registry, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("serving") / "home"
    with inference_server(project, home, registry.uri) as server:
        yield server


def test_no_request_fails_while_champions_change_under_load(
    registry: Registry, server: Server
) -> None:
    first, second = registry.versions
    registry.moves.clear()
    registry.promote(first)
    wait_for(lambda: server.version() == first)
    answered = counter(server, 'zdm_requests_total{path="/predict",status="200"}')

    with Load(server.url, CLIENTS) as load:
        for swap in range(SWAPS):
            target = (second, first)[swap % 2]
            time.sleep(0.5)
            registry.promote(target)
            wait_for(lambda target=target: server.version() == target)
        time.sleep(0.5)

    assert load.failures == []
    assert {answer.status for answer in load.answers} == {200}
    # A version may answer until the next look at the alias has loaded its successor.
    assert all(registry.was_champion(a.version, a.start - 10, a.end) for a in load.answers)
    assert_swaps_are_atomic(load.answers, SWAPS)
    answered = counter(server, 'zdm_requests_total{path="/predict",status="200"}') - answered
    assert answered == len(load.answers)
    wait_for(lambda: counter(server, "zdm_store_queue_rows") == 0)
    wait_for(lambda: {a.prediction_id for a in load.answers} <= stored_ids(server.home), 10)


def counter(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def assert_swaps_are_atomic(answers: list[Answer], swaps: int) -> None:
    """No request that began after a successor had answered was judged by its predecessor.

    With two versions taking turns, a swap back and forth would show as more changes than swaps
    among requests that do not overlap.
    """
    by_start = sorted(answers, key=lambda answer: answer.start)
    separate, end = [], 0.0
    for answer in by_start:
        if answer.start >= end:
            separate.append(answer)
            end = answer.end
    changes = sum(before.version != after.version for before, after in pairwise(separate))
    assert 1 <= changes <= swaps


def stored_ids(home: Path) -> set[str]:
    connection = sqlite3.connect(home / "predictions.db")
    rows = [row[0] for row in connection.execute("SELECT id FROM predictions")]
    connection.close()
    assert len(rows) == len(set(rows))
    return set(rows)


def test_a_withdrawn_alias_stops_the_answers(registry: Registry, server: Server) -> None:
    first, second = registry.versions
    registry.promote(first)
    wait_for(lambda: server.version() == first)

    registry.withdraw()
    wait_for(lambda: server.version() is None)
    answer = httpx.post(f"{server.url}/predict", content=casting(60))
    registry.promote(second)
    wait_for(lambda: server.version() == second)

    assert answer.status_code == 503
    assert "no approved model" in answer.text


def test_a_dead_registry_stops_neither_the_champion_nor_a_restart(
    registry: Registry, project: Path, tmp_path: Path
) -> None:
    registry.promote(registry.versions[0])
    home, port = tmp_path / "home", free_port()
    uri = f"http://127.0.0.1:{port}"
    with mlflow_server(registry.folder, port) as second_door:
        with inference_server(project, home, uri) as server:
            wait_for(lambda: server.version() == registry.versions[0])
            stop_group(second_door)
            wait_for(lambda: "out of reach" in httpx.get(f"{server.url}/ready").text)
            before = httpx.post(f"{server.url}/predict", content=casting(60))
            stopped = server.stop()

        with inference_server(project, home, uri) as server:
            wait_for(lambda: server.version() is not None)
            ready = httpx.get(f"{server.url}/ready").json()
            after = httpx.post(f"{server.url}/predict", content=casting(60)).json()

    assert (before.status_code, before.json()["model"]["version"]) == (200, registry.versions[0])
    assert stopped in (0, -signal.SIGTERM)
    assert before.json()["prediction_id"] in stored_ids(home)
    assert (ready["origin"], ready["ready"]) == ("local copy", True)
    assert "last verified local copy" in ready["problem"]
    assert after["model"] == before.json()["model"]


def test_offline_and_server_judge_alike_with_the_champion(
    registry: Registry, server: Server, project: Path, tmp_path: Path
) -> None:
    registry.promote(registry.versions[1])
    wait_for(lambda: server.version() == registry.versions[1])
    (tmp_path / "casting.png").write_bytes(casting(100))
    environ = {"MLFLOW_TRACKING_URI": registry.uri, "ZDM_HOME": str(tmp_path)}

    inspector = load_inspector("champion", load_settings(environ, project))
    answer = httpx.post(f"{server.url}/predict", content=casting(100)).json()

    image = decode_grey(tmp_path / "casting.png", max_pixels=10_000)
    assert inspector.version == answer["model"]["version"] == registry.versions[1]
    assert inspector.ruling.threshold == answer["threshold"]
    assert answer["score"] == pytest.approx(float(inspector.net.scores([image])[0]), abs=1e-5)


def test_a_registry_out_of_reach_is_not_taken_for_one_without_a_champion() -> None:
    with pytest.raises(RegistryError):
        RegistrySource(f"http://127.0.0.1:{free_port()}").champion()


def test_the_process_survives_whatever_is_sent_to_it(registry: Registry, server: Server) -> None:
    registry.promote(registry.versions[0])
    rng = np.random.default_rng(5)
    image = casting(60, "JPEG", (400, 300))
    bomb = io.BytesIO()
    Image.new("L", (14_000, 14_000)).save(bomb, "PNG")
    bodies = [
        b"",
        b"\xff\xd8\xff",
        bomb.getvalue(),
        b"\0" * 11_000_000,
        *(image[:cut] for cut in range(2, len(image), len(image) // 15)),
        *(flipped(image, rng) for _ in range(40)),
        *(flipped(casting(60), rng) for _ in range(40)),
        *(rng.bytes(2_000) for _ in range(10)),
    ]
    wait_for(lambda: server.version() == registry.versions[0])

    with httpx.Client(base_url=server.url, timeout=30) as client:
        raw = {client.post("/predict", content=body).status_code for body in bodies}
        form = {client.post("/predict", files={"file": b}).status_code for b in bodies}
        after = client.post("/predict", content=casting(60)).status_code
    memory = psutil.Process(server.process.pid).memory_info().rss
    alive = server.process.poll() is None

    assert raw | form <= {200, 400, 413, 415, 422}
    assert {400, 413, 415, 422} <= raw
    assert (after, alive) == (200, True)
    assert memory < 1.5e9


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    """Return `content` with a few bytes changed."""
    altered = bytearray(content)
    for position in rng.integers(0, len(altered), 8):
        altered[position] = int(rng.integers(0, 256))
    return bytes(altered)


def test_a_taken_port_ends_the_command_with_one_message(project: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-c", "from zdm_ml.cli import main; main()", "serve"],
            env={
                **os.environ,
                "ZDM_ROOT": str(project),
                "ZDM_HOME": str(tmp_path),
                "ZDM_INFERENCE_PORT": str(port),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "ZDM_INFERENCE_PORT" in done.stderr
    assert "Traceback" not in done.stderr
