from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from zdm_ml.errors import ConfigError
from zdm_ml.files import write_json
from zdm_ml.settings import load_settings, make_home


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text("{}\n")
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def test_the_state_folder_lies_in_the_checkout(checkout: Path) -> None:
    assert load_settings({}, checkout).home == checkout / ".zdm"


def test_a_worktree_shares_the_state_folder_of_its_checkout(checkout: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    subprocess.run(
        ["git", "worktree", "add", "-q", "--detach", str(tree)], cwd=checkout, check=True
    )

    assert load_settings({}, tree).home == checkout / ".zdm"


def test_a_second_shell_finds_the_ports_of_the_running_stack(checkout: Path) -> None:
    write_json(checkout / ".zdm" / "stack.json", {"ports": {"mlflow": 5123}})

    settings = load_settings({}, checkout)

    assert settings.mlflow_uri == "http://127.0.0.1:5123"


def test_the_environment_wins_over_the_stack(checkout: Path) -> None:
    write_json(checkout / ".zdm" / "stack.json", {"ports": {"airflow": 8123}})

    assert load_settings({"ZDM_AIRFLOW_PORT": "9000"}, checkout).airflow_port == 9000


def test_a_port_that_is_no_number_is_named(checkout: Path) -> None:
    with pytest.raises(ConfigError, match="ZDM_MLFLOW_PORT"):
        load_settings({"ZDM_MLFLOW_PORT": "http"}, checkout)


def test_a_folder_outside_the_project_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match="not inside the project"):
        load_settings({})


def test_the_state_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    home = make_home(tmp_path / "state")

    assert home.stat().st_mode & 0o777 == 0o700


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")

    with pytest.raises(ConfigError, match=r"state folder .*file.* cannot be written"):
        make_home(blocked / "state")


def test_nothing_is_read_from_the_process_when_an_environment_is_given(checkout: Path) -> None:
    before = dict(os.environ)

    load_settings({}, checkout)

    assert dict(os.environ) == before


def test_users_of_airflow_have_a_role_each(checkout: Path) -> None:
    settings = load_settings({"ZDM_AIRFLOW_USERS": "anna:op, ben"}, checkout)

    assert settings.airflow_users == {"anna": "op", "ben": "user"}
    assert load_settings({}, checkout).airflow_users == {}


@pytest.mark.parametrize("text", ["anna:boss", ":user", "anna:user:extra"])
def test_a_user_of_airflow_that_cannot_be_is_named(checkout: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="ZDM_AIRFLOW_USERS"):
        load_settings({"ZDM_AIRFLOW_USERS": text}, checkout)
