from __future__ import annotations

from zdm_ml.pipeline.dvcfile import Pipeline, Stage
from zdm_ml.pipeline.plan import hash_params, stale_stages


def _stage(name: str, deps: tuple[str, ...], outs: tuple[str, ...], *upstream: str) -> Stage:
    return Stage(name, name, None, "cmd", deps, outs, {}, upstream)


PIPELINE = Pipeline(
    (
        _stage("split", ("data", "split.py"), ("manifest.csv",)),
        _stage("train", ("manifest.csv", "train.py"), ("models/a",), "split"),
        _stage("select", ("models",), ("board.md",), "train"),
    ),
    {},
)
LOCKED = {"split": {}, "train": {}, "select": {}}


def test_absent_outs_alone_make_nothing_stale() -> None:
    status = {
        "split": [{"changed outs": {"manifest.csv": "deleted"}}],
        "train": [
            {"changed deps": {"manifest.csv": "deleted"}},
            {"changed outs": {"models/a": "deleted"}},
        ],
        "select": [{"changed deps": {"models": "deleted"}}],
    }

    assert stale_stages(PIPELINE, status, LOCKED) == set()


def test_changed_code_makes_a_stage_and_all_below_it_stale() -> None:
    status = {"train": [{"changed deps": {"manifest.csv": "deleted", "train.py": "modified"}}]}

    assert stale_stages(PIPELINE, status, LOCKED) == {"train", "select"}


def test_changed_parameters_make_a_stage_stale() -> None:
    status = {"select": [{"changed deps": {"params.yaml": {"select": "modified"}}}]}

    assert stale_stages(PIPELINE, status, LOCKED) == {"select"}


def test_a_changed_command_makes_a_stage_stale() -> None:
    assert "split" in stale_stages(PIPELINE, {"split": ["changed command"]}, LOCKED)


def test_a_stage_that_never_ran_is_stale() -> None:
    assert stale_stages(PIPELINE, {}, {"split": {}}) == {"train", "select"}


def test_a_deleted_dep_that_no_stage_makes_is_a_change() -> None:
    status = {"split": [{"changed deps": {"data": "deleted"}}]}

    assert stale_stages(PIPELINE, status, LOCKED) == {"split", "train", "select"}


def test_who_may_approve_makes_no_other_model() -> None:
    values = {"seed": 1, "promote": {"approvers": ["anna"]}}

    known = hash_params(values)

    assert hash_params(values | {"promote": {"approvers": ["ben"]}}) == known
    assert hash_params(values | {"seed": 2}) != known
