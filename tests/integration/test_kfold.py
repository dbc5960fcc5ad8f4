"""Cross-validation by casting, as a person starts it: real workspaces, DVC, training."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zdm_ml.data.listing import read_listing
from zdm_ml.data.manifest import Row, read_manifest
from zdm_ml.data.splits import leaks
from zdm_ml.data.synthetic import make_synthetic
from zdm_ml.files import read_json

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

BIN = Path(sys.executable).parent
PARTS = 24
KFOLD = ("experiment", "kfold", "--models", "luna", "--folds", "2", "--profile", "smoke", "--json")


@pytest.fixture(scope="module")
def desk(make_checkout: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with rendered castings whose identity their parts.csv tells."""
    root = make_checkout()
    source = tmp_path_factory.mktemp("kfold") / "castings"
    make_synthetic(source, parts=PARTS, views=3, seed=5, size=96)
    zdm(root, "data", "import", str(source))
    return root


@pytest.fixture(scope="module")
def first(desk: Path) -> subprocess.CompletedProcess[str]:
    """The experiment, run for the first time."""
    return zdm(desk, *KFOLD)


def zdm(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("ZDM_")}
    environ["PATH"] = f"{BIN}{os.pathsep}{environ['PATH']}"
    done = subprocess.run(
        ["zdm", *arguments], cwd=root, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def stages_run(done: subprocess.CompletedProcess[str]) -> Counter[str]:
    return Counter(re.findall(r"Running stage '([^']+)'", done.stdout + done.stderr))


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def manifest(root: Path, fold: int) -> list[Row]:
    workspace = root / ".zdm" / "experiments" / f"kfold-2-{fold}-smoke"
    return read_manifest(workspace / "manifest" / "split.csv")


def test_every_casting_is_tested_in_one_fold_and_never_trained_on_there(
    desk: Path, first: subprocess.CompletedProcess[str]
) -> None:
    folds = [manifest(desk, fold) for fold in range(2)]

    tested = Counter(part for rows in folds for part in {r.part for r in rows if r.split == "test"})
    assert (len(tested), set(tested.values())) == (PARTS, {1})
    assert [leaks(rows) for rows in folds] == [[], []]


def test_the_result_has_every_fold_and_is_kept(
    desk: Path, first: subprocess.CompletedProcess[str]
) -> None:
    summary = result(first)["models"]["luna"]

    assert [fold["fold"] for fold in summary["folds"]] == [0, 1]
    assert summary["total"]["by_casting"]["castings"] == PARTS
    wrong = summary["total"]["by_casting"]["escapes"] + summary["total"]["by_casting"]["overkills"]
    assert len(summary["failed"]) == wrong
    kept = read_json(desk / ".zdm" / "experiments" / "kfold-2-smoke-luna.json")
    assert kept["models"] == result(first)["models"]
    assert "mean" in first.stderr


def test_the_audit_runs_once_for_all_folds(first: subprocess.CompletedProcess[str]) -> None:
    ran = stages_run(first)

    assert ran == {"audit": 1, "split": 2, "train@luna": 2, "evaluate@luna": 2}


def test_an_experiment_that_is_started_again_takes_everything_from_the_run_cache(
    desk: Path, first: subprocess.CompletedProcess[str]
) -> None:
    again = zdm(desk, *KFOLD)

    assert stages_run(again) == {}
    assert result(again) == result(first)


def test_the_lockbox_is_tested_by_a_model_that_trained_on_all_the_rest(desk: Path) -> None:
    """Runs last: from here on the lockbox is closed to the other experiments of this checkout."""
    drawn = result(zdm(desk, "data", "lockbox", "--json"))

    score = ("experiment", "lockbox", "--models", "luna", "--profile", "smoke", "--json")
    looks = [result(zdm(desk, *score)) for _ in range(2)]

    rows = read_manifest(desk / ".zdm/experiments/lockbox-smoke/manifest/split.csv")
    sides = {entry.part: entry.side for entry in read_listing(desk / "data" / "castings.csv")}
    inside = {part for part, side in sides.items() if side == "lockbox"}
    assert {row.part for row in rows if row.split == "test"} == inside
    assert len(inside) == sum(drawn["castings"].values())
    assert {"train", "val"} <= {row.split for row in rows}
    assert [look["looks"] for look in looks] == [1, 2]
    assert looks[0]["models"]["luna"]["lockbox"]["by_casting"]["castings"] == len(inside)
