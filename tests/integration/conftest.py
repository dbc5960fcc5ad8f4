"""What integration tests share: an MLflow server for a module, a checkout with a data version."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from castings_desk import CastingsDesk, make_dataset
from foundry import Foundry, forget_everything
from mlflow_server import MlflowServer

from zdm_ml.data.importing import import_data


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    running = MlflowServer(tmp_path_factory.mktemp("mlflow")).start()
    yield running
    running.kill()


@pytest.fixture
def foundry(tmp_path: Path, project: Path, server: MlflowServer) -> Iterator[Foundry]:
    yield Foundry(tmp_path, project, server)
    forget_everything(server)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 24 castings."""
    return make_dataset(tmp_path_factory.mktemp("dataset") / "castings")


@pytest.fixture(scope="session")
def template(make_checkout: Callable[[], Path], dataset: Path) -> CastingsDesk:
    """A checkout with `dataset` as its one data version, to be copied."""
    desk = CastingsDesk(make_checkout())
    import_data(desk.settings, dataset, desk.params)
    return desk
