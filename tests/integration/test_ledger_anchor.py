"""The ledger's anchor on a real MLflow server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import MlflowServer

from zdm_ml.registry import ledger
from zdm_ml.registry.anchor import RegistryAnchor
from zdm_ml.registry.connection import connect
from zdm_ml.registry.glance import anchored
from zdm_ml.settings import REGISTERED_MODEL

pytestmark = pytest.mark.integration


@pytest.fixture
def path(tmp_path: Path, server: MlflowServer) -> Iterator[Path]:
    """A ledger of three decisions, anchored."""
    client = connect(server.uri)
    client.create_registered_model(REGISTERED_MODEL)
    path = tmp_path / "home" / "ledger.jsonl"
    for new in ("1", "2", "3"):
        ledger.append(
            path,
            RegistryAnchor(client),
            action="promote",
            old=None,
            new=new,
            digest=None,
            reason="r",
        )
    yield path
    client.delete_registered_model(REGISTERED_MODEL)


def _zdm(
    path: Path, project: Path, server: MlflowServer, *arguments: str
) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ZDM_")}
    return subprocess.run(
        [str(Path(sys.executable).parent / "zdm"), "ledger", *arguments],
        cwd=project,
        env={**inherited, "ZDM_HOME": str(path.parent), "MLFLOW_TRACKING_URI": server.uri},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_anchor_is_read_the_same_with_and_without_mlflows_client(
    path: Path, server: MlflowServer
) -> None:
    last = ledger.read(path)[-1]

    anchor = anchored(server.uri)

    assert anchor == RegistryAnchor(connect(server.uri)).read() == f"3 {last['hash']}"


def test_verify_checks_the_anchor(path: Path, project: Path, server: MlflowServer) -> None:
    done = _zdm(path, project, server, "--verify", "--json")

    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "chain and anchor hold" in done.stderr
    assert "champion is version -, the last move of the ledger names 3" in done.stderr
    assert (found["anchor_checked"], found["behind"], found["lines"]) == (True, 0, 3)
    assert found["champion_agrees"] is False


def test_a_shortened_file_is_seen_until_somebody_accepts_it(
    path: Path, project: Path, server: MlflowServer
) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))

    seen = _zdm(path, project, server, "--verify")
    accepted = _zdm(path, project, server, "--accept", "--reason", "disk died", "--who", "auditor")
    verified = _zdm(path, project, server, "--verify")

    assert seen.returncode == 1
    assert "line 3: it is missing: the anchor names line 3" in seen.stderr
    assert (accepted.returncode, verified.returncode) == (0, 0), accepted.stderr
    assert "lines 1 to 2 are held as a whole by line 3" in verified.stderr
    assert ledger.read(path)[-1]["who"] == "auditor"


def test_a_deleted_file_is_seen(path: Path, project: Path, server: MlflowServer) -> None:
    path.unlink()

    done = _zdm(path, project, server, "--verify")

    assert done.returncode == 1
    assert "line 1: it is missing" in done.stderr
