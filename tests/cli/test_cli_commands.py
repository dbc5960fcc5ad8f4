"""What scripts rely on: exit codes, and JSON alone on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ZDM = Path(sys.executable).parent / "zdm"


@pytest.fixture(scope="module")
def zdm(make_checkout: Callable[[], Path]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs `zdm` in a checkout of its own, with nothing of ours in the shell."""
    root = make_checkout()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ZDM_")}

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ZDM), *arguments],
            cwd=root,
            env={**inherited, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


Run = Callable[..., subprocess.CompletedProcess[str]]


def test_models_json_lists_what_the_contract_names(zdm: Run) -> None:
    done = zdm("models", "--json")

    rows = json.loads(done.stdout)
    named = {"name", "family", "parameters", "trainable", "input_size", "weights"}
    assert len(rows) == 8
    assert all(named <= set(row) for row in rows)
    assert rows[0]["parameters"] == 115_088


@pytest.mark.integration
def test_an_import_prints_one_json_object_and_a_repeat_changes_nothing(
    zdm: Run, castings_source: Path
) -> None:
    first = json.loads(zdm("data", "import", str(castings_source), "--json").stdout)
    second = json.loads(zdm("data", "import", str(castings_source), "--json").stdout)

    named = {"images", "quarantined", "per_split", "castings", "data_md5", "version", "changed"}
    assert set(first) == named
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["data_md5"] == second["data_md5"]
    assert first["images"] == sum(sum(counts.values()) for counts in first["per_split"].values())
    if castings_source.suffix == ".zip":
        assert first["data_md5"] == "9e187d86e7aaaca68ea5efb45e2ec77a.dir"


@pytest.mark.integration
def test_synthetic_castings_keep_masks_and_part_ids(zdm: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"

    done = zdm(
        *("data", "import", "synthetic", "--parts", "8", "--views", "3", "--json"),
        ZDM_HOME=str(home),
    )

    assert json.loads(done.stdout)["images"] == 24
    (folder,) = (home / "synthetic").iterdir()
    assert (folder / "parts.csv").is_file()
    assert any((folder / "masks").iterdir())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("data", "import", "nothing-here.zip"), "nothing-here.zip does not exist"),
        (("train", "--model", "vgg16"), "no model 'vgg16'"),
        (("profile", "fast"), "no profile 'fast'"),
        (("workspace", "stage", "--run-id", "r9", "audit"), "run r9 has no workspace"),
        pytest.param(
            ("register", "--run-id", "r9"),
            "run r9 has no workspace",
            marks=pytest.mark.integration,  # it imports mlflow and torch first
        ),
    ],
)
def test_a_mistake_gets_one_screen_without_a_traceback(
    zdm: Run, arguments: tuple[str, ...], named: str
) -> None:
    done = zdm(*arguments)

    assert done.returncode == 1
    assert named in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_debug_shows_the_traceback(zdm: Run) -> None:
    done = zdm("--debug", "profile", "fast")

    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.integration
def test_a_full_state_folder_is_named_and_nothing_is_imported(
    zdm: Run, castings_source: Path, tmp_path: Path
) -> None:
    """A tmpfs of 1 MiB, where this account may mount one; elsewhere a folder that is a file."""
    home = tmp_path / "home"
    home.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(home)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        home.rmdir()
        home.write_text("in the way")
    try:
        done = zdm("data", "import", str(castings_source), ZDM_HOME=str(home))
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(home)], check=True)

    assert done.returncode == 1
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
