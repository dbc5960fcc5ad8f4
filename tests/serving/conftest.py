"""Three small packages, and a server's configuration."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from folder_source import FolderSource
from registry_builders import make_castings, make_run

from zdm_ml.registry.assembly import assemble
from zdm_ml.serving.config import ServingConfig


@pytest.fixture(scope="session")
def castings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of grey PNGs: dark ones are defects, bright ones are ok."""
    folder = tmp_path_factory.mktemp("castings")
    make_castings(folder)
    return folder


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Versions 1 to 3: three LUNAs that differ in their weights; 2 has a threshold of its own."""
    folder = tmp_path_factory.mktemp("packages")
    rows = make_castings(folder / "castings")
    built = {}
    for version, threshold in (("1", 0.5), ("2", 0.25), ("3", 0.75)):
        run = folder / f"run-{version}"
        source = make_run(run, folder / "castings", rows, seed=int(version), threshold=threshold)
        package = assemble(
            folder / version,
            model=run / "models" / "luna",
            evaluation=run / "evaluation" / "luna",
            rows=rows,
            castings=folder / "castings",
            source=source,
        )
        built[version] = package.folder
    return built


@pytest.fixture
def source(packages: dict[str, Path], tmp_path: Path) -> FolderSource:
    """A registry of its own for each test, so that a test may damage it."""
    folders = {
        version: Path(shutil.copytree(folder, tmp_path / "registry" / version))
        for version, folder in packages.items()
    }
    return FolderSource(folders)


@pytest.fixture
def config(tmp_path: Path) -> ServingConfig:
    """A server's configuration with its state below `tmp_path`."""
    return ServingConfig(
        name="casting-inspector",
        state=tmp_path / "serving",
        store_url=f"sqlite:///{tmp_path / 'predictions.db'}",
        poll_seconds=0.05,
    )
