"""`zdm ledger` and the reason of `zdm rollback`, with MLflow out of reach."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from memory_anchor import MemoryAnchor
from ports import free_port

from zdm_ml.registry import ledger

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of three decisions in a state folder of its own."""
    path, anchor = tmp_path / "home" / "ledger.jsonl", MemoryAnchor()
    for old, new in ((None, "1"), ("1", "2"), ("2", "3")):
        ledger.append(
            path,
            anchor,
            action="promote",
            old=old,
            new=new,
            digest=None,
            reason=f"[bold]better\nthan {old}",
        )
    return path


@pytest.fixture
def zdm(path: Path, project: Path) -> Run:
    """A function that runs `zdm` on that state folder."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ZDM_")}
    environ = {
        **inherited,
        "ZDM_HOME": str(path.parent),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
    }
    command = str(Path(sys.executable).parent / "zdm")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *arguments],
            cwd=project,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_table_shows_one_decision_a_row_the_newest_last(zdm: Run) -> None:
    rows = zdm("ledger").stdout.splitlines()

    shown = [row for row in rows if "promote" in row]
    assert [row.split()[0] for row in shown] == ["1", "2", "3"]
    assert "[bold]better than 2" in shown[-1]
    assert all(dt.datetime.fromisoformat(row.split()[1]).microsecond == 0 for row in shown)


def test_json_is_one_object_a_line_as_it_was_written(zdm: Run, path: Path) -> None:
    lines = zdm("ledger", "--json").stdout.splitlines()

    assert [json.loads(line) for line in lines] == ledger.read(path)


def test_an_empty_ledger_is_shown_and_verified(zdm: Run, path: Path) -> None:
    path.unlink()

    shown, verified = zdm("ledger"), zdm("ledger", "--verify")

    assert (shown.returncode, verified.returncode) == (0, 0)


def test_without_mlflow_the_chain_is_verified_and_the_anchor_said_to_be_unchecked(
    zdm: Run,
) -> None:
    done = zdm("ledger", "--verify", "--json")

    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert "the anchor was not checked" in done.stderr
    assert "3 lines, the chain holds" in done.stderr
    assert (found["intact"], found["anchor_checked"], found["behind"]) == (True, False, None)


def test_verify_names_the_line_and_the_next_step(zdm: Run, path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"to":"2"', b'"to":"7"'))

    done = zdm("ledger", "--verify", "--json")

    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert "ledger.jsonl, line 2: it was changed" in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
    assert (found["intact"], found["line"]) == (False, 2)


def test_old_lines_are_said_to_have_nothing_that_vouches_for_them(zdm: Run, path: Path) -> None:
    path.write_text('{"action": "promote", "from": null, "to": "1"}\n')

    done = zdm("ledger", "--verify")

    assert done.returncode == 0
    assert "no line carries a hash" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("rollback",), ("rollback", "--reason", "  "), ("ledger", "--accept")],
    ids=["none", "blank", "accept"],
)
def test_a_decision_without_a_reason_is_refused(zdm: Run, arguments: tuple[str, ...]) -> None:
    done = zdm(*arguments)

    assert done.returncode == 1
    assert "needs a reason" in done.stderr
    assert "next:" in done.stderr
    assert done.stdout == ""
