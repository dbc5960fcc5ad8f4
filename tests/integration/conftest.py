"""An MLflow server for the tests of a module, and a project on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from foundry import Foundry, forget_everything
from mlflow_server import MlflowServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    running = MlflowServer(tmp_path_factory.mktemp("mlflow")).start()
    yield running
    running.kill()


@pytest.fixture
def foundry(tmp_path: Path, project: Path, server: MlflowServer) -> Iterator[Foundry]:
    yield Foundry(tmp_path, project, server)
    forget_everything(server)
