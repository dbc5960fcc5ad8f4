"""Live records of a training on a real MLflow server, which may die at any time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import MlflowServer
from ports import free_port

from zdm_ml.registry.connection import connect
from zdm_ml.registry.runs import TrainedModel, Training, ensure_run, start_parent
from zdm_ml.registry.tracking import Tracking

pytestmark = pytest.mark.integration

TRAINING = Training(
    "luna", "quick", "run-1", "0" * 32 + ".dir", {"train": {"batch_size": 16}}, {"git_commit": "c"}
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    running = MlflowServer(tmp_path).start()
    yield running
    running.kill()


def _history(folder: Path) -> Path:
    path = folder / "luna.csv"
    path.write_text("epoch,train_loss\n1,0.5\n2,0.25\n3,0.125\n")
    return path


def test_a_training_is_recorded_and_a_dead_server_is_caught_up_with(
    server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parent = start_parent(server.uri, "run-1", {"profile": "quick"}, {"profile": "quick"})
    assert parent == start_parent(server.uri, "run-1", {}, {})
    history = _history(tmp_path)

    with (
        caplog.at_level(logging.WARNING, "zdm_ml"),
        Tracking(server.uri, parent).model_run(TRAINING) as run,
    ):
        run.epoch({"epoch": 1, "train_loss": 0.5})
        _wait_for_metric(server, "train_loss")
        _wait_for_metric(server, "system/cpu")
        server.kill()
        run.epoch({"epoch": 2, "train_loss": 0.25})
        run.epoch({"epoch": 3, "train_loss": 0.125})
        run.finish(model_digest="d" * 64, history=history, tags={"init": "scratch"})
    server.start()
    trained = TrainedModel(
        **vars(TRAINING), model_digest="d" * 64, history=history, evaluation={"test": {"f1": 0.5}}
    )
    client = connect(server.uri)
    run_id = ensure_run(client, trained, lambda: str(parent))
    assert run_id == ensure_run(client, trained, lambda: str(parent))

    recorded = client.get_run(run_id)
    steps = [entry.step for entry in client.get_metric_history(run_id, "train_loss")]
    assert len(caplog.records) == 1
    assert sorted(steps) == [1, 2, 3]
    assert recorded.info.status == "FINISHED"
    assert recorded.data.params["train.batch_size"] == "16"
    assert recorded.data.tags["mlflow.parentRunId"] == parent
    assert recorded.data.metrics["test.f1"] == 0.5
    assert any(key.startswith("system/cpu") for key in recorded.data.metrics)
    assert len(recorded.inputs.dataset_inputs) == 1


def _wait_for_metric(server: MlflowServer, start: str) -> None:
    client = connect(server.uri)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        experiments = [e.experiment_id for e in client.search_experiments()]
        found = client.search_runs(experiments, "tags.role = 'model'")
        if found and any(key.startswith(start) for key in found[0].data.metrics):
            return
        time.sleep(0.2)
    raise AssertionError(f"{start} never arrived")


def test_a_server_that_never_was_costs_a_training_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"

    with caplog.at_level(logging.WARNING, "zdm_ml"):
        parent = start_parent(uri, "run-1", {}, {})
        with Tracking(uri, "some-parent").model_run(TRAINING) as run:
            began = time.perf_counter()
            run.epoch({"epoch": 1, "train_loss": 0.5})
            cost = time.perf_counter() - began
            run.finish(model_digest="d" * 64)

    assert parent is None
    assert cost < 0.05
    assert len(caplog.records) == 2
