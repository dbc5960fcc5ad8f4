"""From an archive of castings to a verdict, through every real component, with profile smoke.

One stack serves all tests; they run in file order, as a day with the product would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import requests
from nbclient import NotebookClient
from ports import stack_ports

from zdm_ml.registry.glance import Counts, count_entries
from zdm_ml.stack import port_is_free

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1500),
    # jupyter_client still calls what zmq is about to drop.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

BIN = Path(sys.executable).parent


@dataclass
class Site:
    """A checkout with its own state and ports, as a newcomer's machine would have."""

    root: Path
    environ: dict[str, str]

    def zdm(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(BIN / "zdm"), *arguments],
            cwd=self.root,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def json(self, *arguments: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.zdm(*arguments, "--json").stdout.splitlines()[-1])
        return answer

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.environ[f'ZDM_{name}_PORT']}"

    def counts(self) -> Counts:
        return count_entries(self.url("MLFLOW"))

    def a_test_image(self) -> Path:
        return min((self.root / "data" / "castings" / "test" / "def_front").iterdir())


@pytest.fixture(scope="module")
def site(make_checkout: Callable[[], Path]) -> Iterator[Site]:
    """A stopped site; whatever its tests start is stopped at the end."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ZDM_", "AIRFLOW", "MLFLOW"))
    }
    site = Site(make_checkout(), inherited | stack_ports())
    try:
        yield site
    finally:
        site.zdm("down", check=False)


@pytest.fixture(scope="module")
def first_run(site: Site, castings_source: Path) -> str:
    """What the first run of the whole road says on the screen."""
    return site.zdm("run", "--data", str(castings_source), "--profile", "smoke").stderr


def test_the_first_run_ends_with_a_champion_that_answers(site: Site, first_run: str) -> None:
    status = site.json("status")
    counts = site.counts()

    assert "live: castings/test/def_front" in first_run
    assert status["healthy"] is True
    assert status["champion"]["version"] == "1"
    assert status["champion"]["profile"] == "smoke"
    assert status["last_run"]["state"] == "success"
    assert status["last_run"]["decision"] == "promoted"
    assert (counts.trainings, counts.versions) == (8, 1)


def test_the_leaderboard_ranks_all_eight_and_marks_them_demo(site: Site, first_run: str) -> None:
    workspace = next((site.root / ".zdm" / "runs").iterdir())
    rows = json.loads((workspace / "reports" / "leaderboard.json").read_text())

    assert [row["rank"] for row in rows] == list(range(1, 9))
    assert first_run.count("(demo)") >= 8
    assert (workspace / "reports" / "leaderboard.png").read_bytes().startswith(b"\x89PNG")


def test_the_live_server_names_version_and_data(site: Site, first_run: str) -> None:
    image = site.a_test_image()

    answer = requests.post(
        f"{site.url('INFERENCE')}/predict", data=image.read_bytes(), timeout=30
    ).json()

    assert answer["model"]["version"] == "1"
    assert answer["model"]["data_md5"].endswith(".dir")
    assert answer["verdict"] == ("defect" if answer["score"] >= answer["threshold"] else "ok")


def test_offline_and_live_scores_are_the_same(site: Site, first_run: str) -> None:
    image = site.a_test_image()
    live = requests.post(
        f"{site.url('INFERENCE')}/predict", data=image.read_bytes(), timeout=30
    ).json()

    offline = site.json("predict", str(image))

    assert offline["verdict"] == live["verdict"]
    assert abs(offline["score"] - live["score"]) < 1e-5


def test_a_client_without_our_package_scores_with_pickle_off(site: Site, first_run: str) -> None:
    code = (
        "import sys; sys.modules['zdm_ml'] = None\n"
        "import mlflow, numpy as np\n"
        "model = mlflow.pyfunc.load_model('models:/casting-inspector@champion')\n"
        "print(model.predict(np.zeros((3, 300, 300), np.uint8)).shape)\n"
    )
    environ = {
        **site.environ,
        "MLFLOW_TRACKING_URI": site.url("MLFLOW"),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environ,
        cwd=site.root.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == str(np.zeros(3).shape)


def test_a_second_run_changes_nothing_and_says_so(site: Site, first_run: str) -> None:
    before = site.counts()

    said = site.zdm("run", "--profile", "smoke").stderr

    assert "nothing to retrain" in said
    assert site.counts() == before
    assert site.json("status")["champion"]["version"] == "1"


def test_the_run_can_be_checked_out_byte_by_byte(site: Site, first_run: str) -> None:
    (tag,) = [
        line
        for line in _git(site.root, "tag", "--list", "run/*", "--sort=creatordate").splitlines()
    ][:1]
    workspace = site.root / ".zdm" / "runs" / tag.removeprefix("run/")
    kept = (workspace / "models" / "luna" / "weights.safetensors").read_bytes()
    environ = {**site.environ, "PATH": f"{BIN}{os.pathsep}{site.environ['PATH']}"}

    _git(site.root, "checkout", "--quiet", tag)
    subprocess.run(["dvc", "checkout", "--quiet"], cwd=site.root, env=environ, check=True)

    assert (site.root / "models" / "luna" / "weights.safetensors").read_bytes() == kept
    _git(site.root, "checkout", "--quiet", "main")


def test_the_example_of_loading_the_champion_runs(
    site: Site, first_run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in site.environ.items():
        monkeypatch.setenv(key, value)
    notebook = nbformat.read(site.root / "examples" / "load_the_champion.ipynb", as_version=4)
    folder = {"metadata": {"path": str(site.root / "examples")}}

    NotebookClient(notebook, timeout=240, resources=folder).execute()

    assert notebook.cells[-1].outputs[-1].data["text/plain"].startswith("{'verdict'")


def test_down_leaves_no_process_and_no_port(site: Site, first_run: str) -> None:
    site.zdm("down")

    for name in ("AIRFLOW", "MLFLOW", "INFERENCE"):
        # A connection that was just closed does not count: nothing listens any more.
        assert port_is_free(int(site.environ[f"ZDM_{name}_PORT"]))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout
