"""git and dvc, called as commands: the only module that starts either."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zdm_ml.errors import PipelineError

_FULL_DISK = ("No space left", "unable to write", "Disk quota exceeded")
_SCARCE_BYTES = 1 << 20
_AUTHOR = ("-c", "user.name=ZDM Retrain", "-c", "user.email=zdm@localhost")


def git(root: Path, *arguments: str, stdin: str | None = None) -> str:
    """Run git in `root` and return what it printed; a failure raises `PipelineError`."""
    return _run(["git", *arguments], root, stdin=stdin).strip()


def git_as_product(root: Path, *arguments: str, stdin: str | None = None) -> str:
    """Run git with the product as author, for commits that a run or an import makes."""
    return git(root, *_AUTHOR, *arguments, stdin=stdin)


def tag_exists(root: Path, tag: str) -> bool:
    """Tell whether the repository has that tag."""
    return bool(git(root, "tag", "--list", tag))


def head_commit(root: Path) -> str:
    """Return the commit that the checkout stands on."""
    try:
        return git(root, "rev-parse", "--verify", "HEAD")
    except PipelineError as error:
        raise PipelineError(
            f"{root} is not a git checkout with a commit", hint="clone the project, or `git commit`"
        ) from error


def uncommitted(root: Path) -> list[str]:
    """Return the tracked files that differ from the last commit."""
    lines = git(root, "status", "--porcelain", "--untracked-files=no").splitlines()
    return [line[2:].strip() for line in lines]


def dvc_command(*arguments: str) -> list[str]:
    """Return the command line that runs this environment's dvc."""
    return [sys.executable, "-m", "dvc", *arguments]


def dvc(root: Path, *arguments: str) -> str:
    """Run dvc in `root` and return what it printed; a failure raises `PipelineError`."""
    return _run(dvc_command(*arguments), root)


def dvc_json(root: Path, *arguments: str) -> Any:
    """Run a dvc command that prints JSON and return the value."""
    printed = dvc(root, *arguments)
    try:
        return json.loads(printed)
    except ValueError as error:
        raise PipelineError(
            f"dvc {' '.join(arguments)} printed no JSON: {printed[:200]}"
        ) from error


def _run(
    command: Sequence[str],
    root: Path,
    *,
    stdin: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, input=stdin, env=environ
    )
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        name = "dvc" if "dvc" in command else "git"
        shown = " ".join(command[command.index(name) :])
        # A quiet dvc keeps its reason to itself.
        scarce = shutil.disk_usage(root).free < _SCARCE_BYTES
        full = scarce or any(sign in done.stderr for sign in _FULL_DISK)
        raise PipelineError(
            f"`{shown}` failed in {root}: {' '.join(words[-4:])}",
            hint=f"{'free some space' if full else 'correct what it says'}, then do the same again",
        )
    return done.stdout
