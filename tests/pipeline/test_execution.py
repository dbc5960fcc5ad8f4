from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from zdm_ml.pipeline.dvcfile import Stage, read_pipeline
from zdm_ml.pipeline.execution import claimed_devices, failure_record
from zdm_ml.pipeline.workspace import Workspace, safe_run_id
from zdm_ml.settings import load_settings

TRAIN = Stage("train@luna", "train", "luna", "cmd", (), (), {})


@pytest.fixture
def workspace(tmp_path: Path, project: Path) -> Workspace:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).write_text((project / name).read_text())
    return Workspace("run", tmp_path)


def _record(workspace: Workspace) -> Path:
    return workspace.path / read_pipeline(workspace.path).paths["failures"] / "train.luna.json"


def test_a_task_gets_one_of_the_gpus_that_the_shell_granted(tmp_path: Path) -> None:
    settings = load_settings({"ZDM_GPU_SLOTS": "2", "ZDM_HOME": str(tmp_path)}, tmp_path)
    stage = replace(TRAIN, meta={"airflow": {"pool": "gpu"}})
    granted = {"CUDA_VISIBLE_DEVICES": "2,5"}

    with (
        claimed_devices(settings, stage, granted) as first,
        claimed_devices(settings, stage, granted) as second,
    ):
        assert (first, second) == (["2"], ["5"])


def test_a_stage_outside_the_training_pool_takes_no_device(tmp_path: Path) -> None:
    settings = load_settings({"ZDM_HOME": str(tmp_path)}, tmp_path)

    with claimed_devices(settings, TRAIN, {}) as devices:
        assert devices == []


def test_a_stage_that_finishes_leaves_no_failure_record(workspace: Workspace) -> None:
    with failure_record(workspace, TRAIN):
        assert _record(workspace).exists()

    assert not _record(workspace).exists()


def test_a_stage_that_fails_leaves_its_last_words(workspace: Workspace) -> None:
    with failure_record(workspace, TRAIN) as note:
        note("loss is NaN")

    assert json.loads(_record(workspace).read_text())["message"] == "loss is NaN"


def test_a_stage_that_is_interrupted_leaves_a_failure_record(workspace: Workspace) -> None:
    with pytest.raises(KeyboardInterrupt), failure_record(workspace, TRAIN):
        raise KeyboardInterrupt

    assert json.loads(_record(workspace).read_text())["model"] == "luna"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("manual__2026-01-02T03:04:05+00:00", "manual__2026-01-02T03-04-05-00-00"),
        ("a..b", "a.b"),
        ("x.lock", "x"),
    ],
)
def test_a_run_id_can_name_a_folder_and_a_git_tag(text: str, safe: str) -> None:
    assert safe_run_id(text) == safe
