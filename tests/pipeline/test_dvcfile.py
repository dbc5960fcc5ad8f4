from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from zdm_ml.errors import PipelineError
from zdm_ml.pipeline.dvcfile import read_pipeline


def _write(root: Path, stages: dict[str, object], **more: object) -> Path:
    spec = {"vars": [{"path": {"data": "data", "out": "out"}}], "stages": stages, **more}
    (root / "dvc.yaml").write_text(yaml.safe_dump(spec))
    (root / "params.yaml").write_text(
        yaml.safe_dump({"models": {"a": {"size": 1}, "b": {"size": 2}}})
    )
    return root


def test_foreach_gives_one_stage_per_key_with_its_values(tmp_path: Path) -> None:
    body = {
        "cmd": "run ${key} ${item.size}",
        "deps": ["${path.data}"],
        "outs": ["${path.out}/${key}"],
    }
    root = _write(tmp_path, {"train": {"foreach": "${models}", "do": body}})

    stages = read_pipeline(root).stages

    assert [(s.name, s.item, s.command, s.outs) for s in stages] == [
        ("train@a", "a", "run a 1", ("out/a",)),
        ("train@b", "b", "run b 2", ("out/b",)),
    ]


def test_a_folder_as_dep_depends_on_every_out_in_it(tmp_path: Path) -> None:
    root = _write(
        tmp_path,
        {
            "select": {"cmd": "s", "deps": ["${path.out}"]},
            "train": {"foreach": "${models}", "do": {"cmd": "t", "outs": ["${path.out}/${key}"]}},
        },
    )

    pipeline = read_pipeline(root)

    assert pipeline.stage("select").upstream == ("train@a", "train@b")
    assert pipeline.stages[-1].name == "select"


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        ({"cmd": "x", "wdir": "elsewhere"}, "wdir"),
        ({"cmd": ["x", "y"]}, "one line"),
        ({"cmd": "x ${nothing.here}"}, "nothing.here"),
        ({"matrix": {"m": ["a"]}, "cmd": "x"}, "matrix"),
        ({"foreach": ["a", "b"], "do": {"cmd": "x"}}, "foreach"),
    ],
)
def test_what_the_reader_does_not_know_is_refused_by_name(
    tmp_path: Path, stage: dict[str, object], named: str
) -> None:
    root = _write(tmp_path, {"train": stage})

    with pytest.raises(PipelineError, match=named):
        read_pipeline(root)


def test_stages_that_need_each_other_are_refused(tmp_path: Path) -> None:
    root = _write(
        tmp_path,
        {
            "one": {"cmd": "x", "deps": ["b"], "outs": ["a"]},
            "two": {"cmd": "y", "deps": ["a"], "outs": ["b"]},
        },
    )

    with pytest.raises(PipelineError, match="depend on each other"):
        read_pipeline(root)


def test_a_folder_without_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"dvc\.yaml is missing"):
        read_pipeline(tmp_path)


def test_every_model_of_the_project_has_a_train_and_an_evaluate_stage(project: Path) -> None:
    pipeline = read_pipeline(project)

    names = {stage.name for stage in pipeline.stages}

    assert {
        f"{group}@{item}" for group in ("train", "evaluate") for item in pipeline.items
    } <= names
    assert len(pipeline.items) == 8
