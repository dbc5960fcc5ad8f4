"""One model trained by two processes, started as a person starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zdm_ml.data.synthetic import make_synthetic
from zdm_ml.files import write_text
from zdm_ml.models.net import load_net
from zdm_ml.pipeline.profiles import run_params

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

BIN = Path(sys.executable).parent
TORCHRUN = ("torchrun", "--standalone", "--nproc-per-node", "2", "-m", "zdm_ml")


@pytest.fixture(scope="module")
def root(make_checkout: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with rendered castings, split, under profile smoke."""
    root = make_checkout()
    params = root / "params.yaml"
    write_text(params, run_params(params.read_text(), root, profile="smoke", models=["luna"]))
    source = tmp_path_factory.mktemp("source") / "castings"
    make_synthetic(source, parts=24, views=4, seed=11, size=96)
    assert run(root, "zdm", "data", "import", str(source)).returncode == 0
    assert run(root, "dvc", "repro", "split").returncode == 0
    return root


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("ZDM_")}
    environ["PATH"] = f"{BIN}{os.pathsep}{environ['PATH']}"
    return subprocess.run(
        command, cwd=root, env=environ, capture_output=True, text=True, check=False
    )


def test_two_processes_train_one_model_and_one_of_them_speaks(root: Path) -> None:
    done = run(root, *TORCHRUN, "train", "--model", "luna")

    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert said.count("luna: kept epoch 1 of 1") == 1
    assert said.count("luna: epoch 1/1") == 1
    net = load_net(root / "models" / "luna")
    assert net.spec.model_name == "luna"
    assert (root / "history" / "luna.csv").read_text().count("\n") == 2
    assert not list((root / ".zdm" / "checkpoints").glob("luna-*/*"))
