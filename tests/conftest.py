"""Fixtures that several packages' tests share."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

PROJECT = Path(__file__).resolve().parents[1]
REAL_CASTINGS = PROJECT.parent / "shared" / "castings.zip"


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the checkout under test."""
    return PROJECT


@pytest.fixture(scope="session")
def castings_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real castings where the archive lies beside the project, rendered ones otherwise."""
    if REAL_CASTINGS.is_file():
        return REAL_CASTINGS
    from zdm_ml.data.synthetic import make_synthetic

    folder = tmp_path_factory.mktemp("castings") / "synthetic"
    make_synthetic(folder, parts=20, views=6, seed=11)
    return folder


@pytest.fixture(scope="session")
def make_checkout(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A function that clones what would be committed now into a repository of its own."""

    def make() -> Path:
        root = tmp_path_factory.mktemp("checkout") / "project"
        listed = _git(PROJECT, "ls-files", "--cached", "--others", "--exclude-standard")
        for name in listed.splitlines():
            if (PROJECT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, root / name)
        _git(root, "init", "--quiet", "--initial-branch=main")
        _git(root, "config", "user.name", "Tester")
        _git(root, "config", "user.email", "tester@localhost")
        _git(root, "add", "--all")
        _git(root, "commit", "--quiet", "-m", "Project")
        return root

    return make


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout


def pytest_report_header() -> str:
    """Say which castings the tests see."""
    return f"castings: {'real' if REAL_CASTINGS.is_file() else 'synthetic'}"


class ByModule(LoadScopeScheduling):
    """Keeps a module's tests on one worker, where they share its servers, in file order.

    What starts a whole stack goes to one worker as well: two stacks at once are slow to start.
    """

    def _split_scope(self, nodeid: str) -> str:
        module, _, _ = nodeid.partition("::")
        return "stack" if "e2e/" in module or "stack" in module.split("/")[-1] else module


@pytest.hookimpl(optionalhook=True)  # for -p no:xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByModule:
    """Deal out tests by module, whatever `--dist` says."""
    return ByModule(config, log)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Nets this small only wait for each other's threads on a busy machine."""
    from zdm_ml.training.estimate import one_thread  # here: most tests do without torch

    with one_thread():
        yield
