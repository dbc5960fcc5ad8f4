"""The DAG files as Airflow parses them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jinja2 import Template

from zdm_ml.pipeline.dvcfile import read_pipeline

GOOD = [
    ("retrain", "profile", "smoke"),
    ("retrain", "models", ["luna"]),
    ("retrain", "data_version", "latest"),
    ("retrain", "data_version", "9e187d86e7aaaca68ea5efb45e2ec77a.dir"),
    ("retrain", "data_version", "c6e886e"),
    ("retrain", "force", True),
    ("retrain", "seed", None),
    ("retrain", "seed", 0),
    ("retrain", "note", "after the new mould; 100 % 'quoted' $(text)"),
    ("promote", "version", None),
    ("promote", "version", 3),
    ("promote", "ask_approval", True),
    ("retrain", "ask_approval", True),
    ("rollback", "version", None),
    ("rollback", "version", 3),
    ("rollback", "reason", "escapes; 100 % 'quoted' $(text)\nline 2"),
]
BAD = [
    ("retrain", "profile", "best"),
    ("retrain", "models", []),
    ("retrain", "models", ["luna", "luna"]),
    ("retrain", "models", ["lenet"]),
    ("retrain", "models", "luna"),
    ("retrain", "data_version", "main; rm -rf /"),
    ("retrain", "force", "yes"),
    ("retrain", "seed", -1),
    ("retrain", "seed", 1.5),
    ("retrain", "note", "x" * 501),
    ("promote", "version", 0),
    ("promote", "version", "champion"),
    ("promote", "ask_approval", "no"),
    ("promote", "ask_approval", None),
    ("rollback", "version", 0),
    ("rollback", "version", "previous"),
    ("rollback", "reason", ""),
    ("rollback", "reason", " \n"),
    ("rollback", "reason", None),
    ("rollback", "reason", "x" * 501),
]
FORBIDDEN = {"torch", "torchvision", "mlflow", "dvc", "PIL"}


@pytest.fixture(scope="module")
def parsed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a DAG processor sees."""
    home = tmp_path_factory.mktemp("airflow")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "ZDM_"))}
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("parse_dags.py")),
            str(project / "dags"),
            json.dumps(GOOD + BAD),
        ],
        env={**inherited, "AIRFLOW_HOME": str(home), "ZDM_GPU_SLOTS": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_dag_files_parse_without_errors(parsed: dict[str, Any]) -> None:
    assert parsed["errors"] == {}
    assert {"retrain", "promote", "intake", "rollback"} <= set(parsed["dags"])


def test_dag_files_parse_within_a_second(parsed: dict[str, Any]) -> None:
    assert parsed["seconds"] < 1.0


def test_dag_files_import_no_learning_and_no_tracking(parsed: dict[str, Any]) -> None:
    assert FORBIDDEN.isdisjoint(parsed["modules"])


def test_edges_between_stage_tasks_are_those_of_the_pipeline(
    parsed: dict[str, Any], project: Path
) -> None:
    stages = read_pipeline(project).stages
    names = {stage.name.replace("@", ".") for stage in stages}

    tasks = parsed["dags"]["retrain"]["tasks"]
    rendered = {(up, name) for name in names for up in tasks[name]["upstream"] if up in names}

    expected = {
        (upstream.replace("@", "."), stage.name.replace("@", "."))
        for stage in stages
        for upstream in stage.upstream
    }
    assert rendered == expected


def test_effects_follow_the_stages_in_order(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["retrain"]["tasks"]

    assert tasks["audit"]["upstream"] == ["plan"]
    assert tasks["publish"]["upstream"] == ["select"]
    assert tasks["register"]["upstream"] == ["publish"]


def test_one_failed_model_does_not_stop_latency_and_select(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["retrain"]["tasks"]

    rules = {name: task["trigger_rule"] for name, task in tasks.items()}

    assert rules["latency"] == rules["select"] == "all_done"
    assert rules["evaluate.luna"] == rules["publish"] == "none_failed"
    assert rules["register"] == "all_success"


def test_latency_takes_every_slot_of_the_training_pool(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["retrain"]["tasks"]

    assert tasks["latency"]["pool"] == tasks["train.luna"]["pool"] == "gpu"
    assert tasks["latency"]["slots"] == 3
    assert tasks["train.luna"]["slots"] == 1


def test_stage_settings_come_from_the_pipeline_file(parsed: dict[str, Any], project: Path) -> None:
    tasks = parsed["dags"]["retrain"]["tasks"]

    for stage in read_pipeline(project).stages:
        task = tasks[stage.name.replace("@", ".")]
        assert task["retries"] == stage.airflow["retries"]
        assert task["minutes"] == stage.airflow["timeout_minutes"]


@pytest.mark.parametrize("dag", ["retrain", "promote", "intake", "rollback"])
def test_dag_makes_no_run_that_nobody_asked_for(parsed: dict[str, Any], dag: str) -> None:
    settings = parsed["dags"][dag]

    assert not settings["catchup"]
    assert not settings["paused"]
    assert settings["start_date"] == "None"


def test_a_promotion_that_waits_for_a_person_blocks_no_other(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["promote"]["tasks"]
    runs = {name: dag["max_active_runs"] for name, dag in parsed["dags"].items()}

    assert runs["promote"] > 1 == runs["retrain"] == runs["intake"]
    assert tasks["approval"]["together"] is None
    assert tasks["gate"]["together"] == tasks["promote"]["together"] == 1


def test_a_person_is_asked_between_gate_and_promotion(parsed: dict[str, Any]) -> None:
    tasks = parsed["dags"]["promote"]["tasks"]

    upstream = {name: task["upstream"] for name, task in tasks.items()}

    assert upstream == {
        "gate": [],
        "approval": ["gate"],
        "promote": ["approval"],
        "verify_live": ["promote"],
    }
    # Skipped when nobody has to be asked: only then does the promotion follow a skipped task.
    assert tasks["promote"]["trigger_rule"] == "none_failed"
    assert tasks["verify_live"]["trigger_rule"] == "all_success"


@pytest.mark.parametrize(
    ("shown", "form", "approved"), [(None, False, ""), (None, True, "1"), ({}, False, "1")]
)
def test_what_a_form_asked_for_is_needed_also_where_the_gate_had_refused(
    parsed: dict[str, Any], shown: dict[str, Any] | None, form: bool, approved: str
) -> None:
    template = parsed["dags"]["promote"]["tasks"]["promote"]["env"]["APPROVED"]
    checked = {"approval": None if shown is None else {"approvers": ["admin"]}}

    rendered = Template(template).render(
        ti=SimpleNamespace(xcom_pull=lambda **_: checked),
        asked=lambda params, events: form,
        params={},
        triggering_asset_events=None,
    )

    assert rendered == approved


def test_no_answer_is_a_rejection_and_an_answer_takes_a_reason(parsed: dict[str, Any]) -> None:
    approval = parsed["dags"]["promote"]["tasks"]["approval"]

    assert approval["defaults"] == ["Reject"]
    assert approval["fields"] == ["reason"]


def test_only_the_package_that_was_looked_at_is_promoted(parsed: dict[str, Any]) -> None:
    promote = parsed["dags"]["promote"]["tasks"]["promote"]

    assert '--digest "$DIGEST"' in promote["command"]


@pytest.mark.parametrize("dag", ["retrain", "promote", "intake", "rollback"])
def test_dag_shows_its_picture(parsed: dict[str, Any], dag: str) -> None:
    assert "->" in parsed["dags"][dag]["doc"]


def test_intake_tells_retrain_of_new_castings(parsed: dict[str, Any]) -> None:
    intake, retrain = (parsed["dags"][name] for name in ("intake", "retrain"))

    assert list(intake["tasks"]) == ["intake"]
    assert intake["tasks"]["intake"]["outlets"] == ["castings"]
    assert retrain["assets"] == ["castings"]


def test_rollback_runs_by_hand_alone_and_is_seen_live(parsed: dict[str, Any]) -> None:
    rollback = parsed["dags"]["rollback"]

    assert rollback["assets"] == []
    assert rollback["timetable"] == "NullTimetable"
    assert rollback["tasks"]["verify_live"]["upstream"] == ["rollback"]


def test_form_takes_good_values(parsed: dict[str, Any]) -> None:
    refused = dict(zip(map(repr, GOOD), parsed["refused"], strict=False))

    assert not [value for value, no in refused.items() if no]


def test_form_refuses_bad_values(parsed: dict[str, Any]) -> None:
    refused = dict(zip(map(repr, BAD), parsed["refused"][len(GOOD) :], strict=True))

    assert not [value for value, no in refused.items() if not no]


def test_commands_never_hold_what_people_typed(parsed: dict[str, Any]) -> None:
    for dag in parsed["dags"].values():
        for name, task in dag["tasks"].items():
            assert "params." not in task["command"], name


def test_dag_modules_stay_short(project: Path) -> None:
    lengths = {p.name: len(p.read_text().splitlines()) for p in (project / "dags").glob("*.py")}

    assert max(lengths.values()) < 120, lengths
