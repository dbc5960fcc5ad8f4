"""Live records of a training in MLflow: written beside it, and never in its way."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zdm_ml.registry import entries, runs
from zdm_ml.registry.connection import TRAINING, connect
from zdm_ml.registry.runs import Training

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

SYSTEM_SECONDS = 10.0
CLOSING_SECONDS = 60.0
"""How long the end of a training waits for what is still to be sent."""

Job = Callable[["MlflowClient", str], None]


@dataclass(frozen=True)
class Tracking:
    """Where trainings are recorded; without a server or a parent run nothing is sent."""

    uri: str | None
    parent: str | None

    @contextmanager
    def model_run(self, training: Training) -> Iterator[ModelRun]:
        """Open the nested run of a training; a training that raises leaves it failed.

        Nothing that MLflow does raises here: after its first failure the rest is left to
        `register`, which completes the run from files.
        """
        run = ModelRun(training)
        if self.uri and self.parent:
            run.start(self.uri, self.parent)
        try:
            yield run
        except BaseException:
            run.put(lambda client, run_id: client.set_terminated(run_id, "FAILED"))
            raise
        finally:
            run.close()


class ModelRun:
    """One training's record: calls put work into a queue that a thread of its own sends."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, uri: str, parent: str) -> None:
        """Begin sending to the server at `uri`."""
        self._thread = threading.Thread(
            target=self._send, args=(uri, parent), name="mlflow-record", daemon=True
        )
        self._thread.start()

    def epoch(self, record: Any) -> None:
        """Record one epoch: a dataclass or mapping with `epoch` and numbers."""
        instance = is_dataclass(record) and not isinstance(record, type)
        values = asdict(record) if instance else dict(record)
        step, now = int(values.pop("epoch")), int(time.time() * 1000)
        self.put(lambda client, run_id: _log_epoch(client, run_id, values, step, now))

    def finish(
        self,
        *,
        model_digest: str,
        history: Path | None = None,
        artifacts: Mapping[Path, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Complete the record: `artifacts` maps files to folders in the run."""
        given = {key: getattr(self.training, key) for key in Training.__dataclass_fields__}
        trained = runs.TrainedModel(
            **{**given, "tags": {**self.training.tags, **(tags or {})}},
            model_digest=model_digest,
            history=history,
            artifacts=dict(artifacts or {}),
        )
        self.put(lambda client, run_id: runs.complete(client, run_id, trained))

    def put(self, job: Job) -> None:
        """Queue one request; costs microseconds."""
        if self._thread is not None:
            self._jobs.put(job)

    def close(self) -> None:
        """Wait, within bounds, until everything is sent."""
        if self._thread is None:
            return
        self._jobs.put(None)
        self._thread.join(CLOSING_SECONDS)
        if self._thread.is_alive():
            logger.warning("MLflow is slow: the rest of this run is recorded by `zdm register`")

    def _send(self, uri: str, parent: str) -> None:
        try:
            client = connect(uri, TRAINING)
            run_id = _open(client, parent, self.training)
            experiment = client.get_run(run_id).info.experiment_id
            logger.info("MLflow run: %s/#/experiments/%s/runs/%s", uri, experiment, run_id)
            self._work_off(client, run_id)
        except Exception as error:  # whatever MLflow raises must not reach the training
            logger.warning(
                "MLflow at %s no longer records this training, which goes on: %s",
                uri,
                (str(error).splitlines() or [type(error).__name__])[0][:200],
            )

    def _work_off(self, client: MlflowClient, run_id: str) -> None:
        """Send jobs in order, and the machine's load between them, until the closing mark."""
        load, due = SystemLoad(), time.monotonic()
        while True:
            try:
                job = self._jobs.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                load.send(client, run_id)
                due = time.monotonic() + SYSTEM_SECONDS
                continue
            if job is None:
                return
            job(client, run_id)


class SystemLoad:
    """MLflow's own system metrics (CPU, memory, disk, network, GPU), sent by our thread."""

    def __init__(self) -> None:
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        kinds: list[Callable[[], Any]] = [CPUMonitor, DiskMonitor, NetworkMonitor]
        self._monitors = [*(kind() for kind in kinds), *_gpu_monitors()]
        self._step = 0

    def send(self, client: MlflowClient, run_id: str) -> None:
        """Measure once and send it as metrics `system/...`."""
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        metrics = [
            entries.metric(f"system/{key}", value, self._step) for key, value in values.items()
        ]
        entries.log_metrics(client, run_id, metrics)
        self._step += 1


def _gpu_monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    kind: Callable[[], Any] = GPUMonitor
    try:
        return [kind()]
    except Exception:  # no driver, no pynvml, no GPU: each has its own exception
        return []


def _open(client: MlflowClient, parent: str, training: Training) -> str:
    found = runs.find_nested(client, training)
    if found is not None:
        client.update_run(found.info.run_id, status="RUNNING")
        run_id = str(found.info.run_id)
    else:
        run_id = runs.create_nested(client, parent, training)
    entries.log_params(client, run_id, training.params)
    entries.log_dataset(client, run_id, training.data_md5)
    return run_id


def _log_epoch(
    client: MlflowClient, run_id: str, values: Mapping[str, Any], step: int, now: int
) -> None:
    from mlflow.entities import Metric

    metrics = [Metric(key, float(value), now, step) for key, value in values.items()]
    client.log_batch(run_id, metrics=metrics)
