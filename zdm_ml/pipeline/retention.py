"""What may be forgotten: old workspaces, tags, checkpoints and cache objects."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from zdm_ml.pipeline.commands import dvc, git
from zdm_ml.pipeline.workspace import remove_worktree, run_tag
from zdm_ml.settings import Settings, make_home

DAYS = 7
"""Age from which checkpoints, features, experiments and copies of data versions go."""


@dataclass(frozen=True)
class Collected:
    """What was removed."""

    runs: int
    checkpoints: int
    cache_summary: str


def collect(settings: Settings, *, keep: int, needed: Collection[str]) -> Collected:
    """Forget all but the latest `keep` runs and those in `needed` (runs of registered versions).

    Cache objects go only when no commit of any branch or kept tag names them: data versions are
    commits of a branch, so none of them loses a byte.
    """
    home = make_home(settings.home)
    with FileLock(home / "locks" / "data.lock"):
        runs = _forget_runs(settings, keep=keep, needed=needed)
        checkpoints = _forget_older(home / "checkpoints")
        _forget_older(home / "features")
        for path in _older(home / "experiments"):
            remove_worktree(settings, path)
        _forget_older(home / "data")  # comes back from the cache when needed
        # A run under way has outs that no commit names yet: its workspace speaks for them.
        projects = [
            str(path)
            for name in ("runs", "experiments")
            for path in (home / name).glob("*")
            if path.is_dir()
        ]
        scope = ["--workspace", "--all-commits", "--force"]
        scope += ["--projects", *projects] if projects else []
        printed = dvc(settings.root, "gc", *scope)
        dvc(settings.root, "gc", *scope, "--cloud")
    return Collected(runs, checkpoints, "; ".join(printed.strip().splitlines()))


def _forget_runs(settings: Settings, *, keep: int, needed: Collection[str]) -> int:
    tags = git(settings.root, "tag", "--list", "run/*", "--sort=-creatordate").splitlines()
    tagged = [tag.removeprefix("run/") for tag in tags]
    folders = settings.home / "runs"
    workspaces = sorted(
        (path for path in folders.glob("*") if path.is_dir()),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    kept = {*tagged[:keep], *needed, *(path.name for path in workspaces[:keep])}
    # An earlier state of a kept run, `<id>.1`, stays with it.
    kept |= {name for name in tagged if name.rpartition(".")[0] in kept}
    for path in workspaces:
        if path.name not in kept or (path.name in needed and path.name not in tagged[:keep]):
            remove_worktree(settings, path)
    old = [name for name in tagged if name not in kept]
    if old:
        git(settings.root, "tag", "--delete", *(run_tag(name) for name in old))
    gone = {path.name for path in workspaces if path.name not in kept}
    return len({*old, *gone})


def _forget_older(folder: Path) -> int:
    """Remove the folders in `folder` that nothing has used for a week."""
    old = _older(folder)
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    return len(old)


def _older(folder: Path) -> list[Path]:
    limit = time.time() - DAYS * 86400
    return [path for path in folder.glob("*") if path.is_dir() and _last_use(path) < limit]


def _last_use(folder: Path) -> float:
    """Return when something was put into a folder; features are read without that: their lock."""
    lock = folder / "lock"
    return (lock if lock.is_file() else folder).stat().st_mtime
