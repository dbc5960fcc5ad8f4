"""The stage `confirm`: leaders trained again with other seeds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from registry_builders import make_castings

from zdm_ml.data.listing import Entry, write_listing
from zdm_ml.data.manifest import write_manifest
from zdm_ml.files import read_json, sha256_file, write_json
from zdm_ml.pipeline.confirm_stage import confirm
from zdm_ml.pipeline.evaluate_stage import evaluate
from zdm_ml.pipeline.profiles import run_params
from zdm_ml.pipeline.stages import Context
from zdm_ml.pipeline.train_stage import train
from zdm_ml.settings import load_settings

pytestmark = pytest.mark.usefixtures("one_thread")
TIMING = {"p50_ms": 1.0, "p99_ms": 2.0, "flops": 10**8, "parameters": 9, "size_bytes": 9}
MODELS = ("luna", "resnet18")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Path:
    """Two models trained and evaluated under profile smoke."""
    root = tmp_path_factory.mktemp("confirm")
    shutil.copy(project / "dvc.yaml", root)
    text = run_params(
        (project / "params.yaml").read_text(), project, profile="smoke", models=MODELS
    )
    (root / "params.yaml").write_text(text)
    folder = root / "data" / "castings"
    rows = make_castings(folder)
    entries = [
        Entry(row.path, sha256_file(path), path.stat().st_size, row.part, False, row.split)
        for row in rows
        for path in [folder / row.path]
    ]
    write_listing(root / "data" / "castings.csv", entries)
    write_manifest(root / "manifest" / "split.csv", rows)
    for name in MODELS:
        train(context(root), name, lambda progress: None)
        evaluate(context(root), name)
    write_json(root / "reports" / "latency.json", dict.fromkeys(MODELS, TIMING))
    return root


def context(root: Path) -> Context:
    return Context(load_settings({"ZDM_HOME": str(root / "home")}, root))


def set_seeds(root: Path, seeds: int) -> None:
    params = root / "params.yaml"
    params.write_text(re.sub(r"(?m)^  seeds: \d+$", f"  seeds: {seeds}", params.read_text()))


def test_one_seed_trains_nothing(root: Path) -> None:
    set_seeds(root, 1)

    report = confirm(context(root), lambda progress: None)

    assert report == read_json(root / "reports" / "confirm.json") == {"seeds": 1, "costs": {}}


def test_both_leaders_get_a_cost_per_seed_and_their_folders_stay(root: Path) -> None:
    set_seeds(root, 2)
    kept = {path: path.read_bytes() for path in (root / "models").rglob("*") if path.is_file()}

    report = confirm(context(root), lambda progress: None)

    evaluated = {
        name: read_json(root / "evaluation" / name / "metrics.json")["decision"]["cost"]
        for name in MODELS
    }
    assert {name: costs[0] for name, costs in report["costs"].items()} == evaluated
    assert [len(costs) for costs in report["costs"].values()] == [2, 2]
    assert kept == {p: p.read_bytes() for p in (root / "models").rglob("*") if p.is_file()}
    assert not list((root / "home").glob(".confirm-*"))


def test_another_seed_is_another_training(root: Path) -> None:
    reseeded = Context(context(root).settings, seed=99)

    assert reseeded.params.seed == reseeded.params.raw["seed"] == 99
    assert context(root).params.seed != 99
