"""The door to MLflow: a client with bounded waits, and one kind of error."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zdm_ml.errors import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Patience:
    """How long one request may take, and how often it is tried again."""

    timeout_seconds: int
    retries: int


EFFECT = Patience(timeout_seconds=120, retries=3)
TRAINING = Patience(timeout_seconds=4, retries=0)


def connect(uri: str, patience: Patience = EFFECT) -> MlflowClient:
    """Return a client of the server at `uri`; nothing is sent yet.

    MLflow reads these switches from the process: they hold for every client in it.
    """
    # Before the import, or it reports to its vendor; pickle stays off for whatever is loaded;
    # standard output belongs to the commands' own JSON.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(patience.timeout_seconds)
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(patience.retries)
    os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] = "1"
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def registry_errors(uri: str, doing: str) -> Iterator[None]:
    """Turn whatever MLflow or the network raises into a `RegistryError` that says what was done."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RegistryError(
            f"MLflow at {uri}: {doing} failed: {first_line[:300]}",
            hint="`zdm status` shows whether the server answers; then run the same command again",
        ) from error
