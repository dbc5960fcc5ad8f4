"""One training, and one alone into a folder that another net lies in already."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from filelock import FileLock, Timeout
from registry_builders import make_castings

from zdm_ml.data.listing import Entry, write_listing
from zdm_ml.data.manifest import write_manifest
from zdm_ml.files import read_json, sha256_file, write_json
from zdm_ml.pipeline import evaluate_stage, train_stage
from zdm_ml.pipeline.desk import train_alone
from zdm_ml.pipeline.fitting import CROSSFIT_FILE
from zdm_ml.pipeline.profiles import run_params
from zdm_ml.pipeline.stages import Context
from zdm_ml.pipeline.train_stage import DECISION_FILE
from zdm_ml.settings import load_settings
from zdm_ml.training.loop import EpochRecord, TrainResult

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def root(tmp_path: Path, project: Path) -> Path:
    """A split of a few images, and a folder `out` with the threshold of another net."""
    shutil.copy(project / "dvc.yaml", tmp_path)
    text = (project / "params.yaml").read_text()
    params = run_params(text, project, profile="smoke", models=["luna"])
    (tmp_path / "params.yaml").write_text(params)
    folder = tmp_path / "data" / "castings"
    rows = make_castings(folder)
    paths = {row: folder / row.path for row in rows}
    write_listing(
        tmp_path / "data" / "castings.csv",
        (
            Entry(row.path, sha256_file(path), path.stat().st_size, row.part, False, row.split)
            for row, path in paths.items()
        ),
    )
    write_manifest(tmp_path / "manifest" / "split.csv", rows)
    write_json(tmp_path / "out" / DECISION_FILE, {"threshold": 0.123})
    return tmp_path


def context(root: Path, recipe: str) -> Context:
    return Context(load_settings({"ZDM_HOME": str(root / "home")}, root), recipe)


class KilledError(Exception):
    pass


def test_a_net_never_lies_beside_the_threshold_of_another(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = train_stage.save_net

    def killed(*arguments: Any) -> None:
        save(*arguments)
        raise KilledError

    monkeypatch.setattr(train_stage, "save_net", killed)

    with pytest.raises(KilledError):
        train_alone(context(root, "reference"), "luna", root / "out", lambda _: None)

    assert (root / "out" / "net.json").is_file()
    assert not (root / "out" / DECISION_FILE).exists()


@pytest.mark.parametrize(("recipe", "scored"), [("modern", 0), ("reference", 10)])
def test_only_a_net_that_is_not_cross_fitted_scores_what_was_held_back(
    root: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, scored: int
) -> None:
    """Cross-fitting has scored it, by nets that did not learn from it."""
    seen = []

    def score(net: object, rows: list[Any], *_: object, **__: object) -> np.ndarray:
        seen.append(len(rows))
        return np.linspace(0, 1, len(rows))

    monkeypatch.setattr(evaluate_stage, "score_rows", score)

    train_alone(context(root, recipe), "luna", root / "out", lambda _: None)

    assert seen == [scored]
    assert (root / "out" / CROSSFIT_FILE).is_file() == (scored == 0)
    assert read_json(root / "out" / DECISION_FILE)["threshold"] != 0.123


def test_checkpoints_are_removed_before_another_process_may_write_its_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []

    def remove(kept: Path, **_: object) -> None:
        with pytest.raises(Timeout):
            FileLock(kept.with_suffix(".lock")).acquire(timeout=0)
        removed.append(kept)

    trained = TrainResult(1, [EpochRecord(1, 0.5, 0.5, 0.5, 1e-3, 1.0, 1.0)], 0)
    monkeypatch.setattr(train_stage, "fit", lambda *_: (trained, None))
    monkeypatch.setattr(train_stage, "shutil", SimpleNamespace(rmtree=remove))

    train_stage.train(context(root, "reference"), "luna", lambda _: None)

    assert [path.parent for path in removed] == [root / "home" / "checkpoints"]
