"""Run workspaces: a git worktree at a pinned commit plus a pinned data version."""

from __future__ import annotations

import configparser
import io
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from zdm_ml.errors import PipelineError
from zdm_ml.files import write_text
from zdm_ml.pipeline.commands import dvc, git, git_as_product, head_commit, tag_exists
from zdm_ml.pipeline.lock import check_lock, is_hash
from zdm_ml.settings import Settings

LOCAL_REMOTE = "local"
PUBLISHED_FILES = ("params.yaml", "dvc.lock")
DATA_FILES = ("data/castings.dvc", "data/castings.csv")


def safe_run_id(text: str) -> str:
    """Turn an orchestrator's run id into one that can name a folder and a git tag."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")
    if not cleaned:
        raise PipelineError(f"run id {text!r} holds no letter or digit")
    return re.sub(r"\.{2,}", ".", cleaned)[:120].removesuffix(".lock")


def run_tag(run_id: str) -> str:
    """Return the git tag that keeps a run's parameters and lock."""
    return f"run/{run_id}"


@dataclass(frozen=True)
class Workspace:
    """The folder of one run, `.zdm/runs/<run_id>`."""

    run_id: str
    path: Path

    @property
    def record(self) -> Path:
        """The file with what `plan` decided."""
        return self.path / ".zdm-run.json"


def workspace_of(settings: Settings, run_id: str) -> Workspace:
    """Return the workspace of a run, whether it exists or not."""
    safe = safe_run_id(run_id)
    return Workspace(safe, settings.home / "runs" / safe)


def existing_workspace(settings: Settings, run_id: str) -> Workspace:
    """Return a planned run's workspace; without one, `PipelineError`."""
    workspace = workspace_of(settings, run_id)
    if not workspace.record.is_file():
        raise PipelineError(
            f"run {workspace.run_id} has no workspace at {workspace.path}",
            hint="`git tag -l 'run/*'` lists the runs that are kept; plan a new one",
        )
    return workspace


def add_worktree(settings: Settings, path: Path, commit: str | None = None) -> None:
    """Check out a commit at `path`, detached, with this checkout's DVC cache and remote."""
    if path.exists():
        remove_worktree(settings, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    commit = commit or head_commit(settings.root)
    # Forced twice: a killed `worktree add` leaves an entry for this path that git holds locked.
    force = ("--force", "--force")
    git(settings.root, "worktree", "add", "--quiet", *force, "--detach", str(path), commit)
    write_local_config(settings, path)


def remove_worktree(settings: Settings, path: Path) -> None:
    """Remove a worktree and what git remembers of it."""
    shutil.rmtree(path, ignore_errors=True)
    git(settings.root, "worktree", "prune")


def write_local_config(settings: Settings, path: Path) -> None:
    """Give a worktree the checkout's own local DVC settings with absolute cache and remote.

    DVC resolves relative paths from the worktree, which would start an empty cache there. Every
    remote is verified: DVC would otherwise take whatever a remote returns for the right bytes.
    """
    main = settings.home.parent if (settings.home.parent / ".dvc").is_dir() else settings.root
    config = configparser.ConfigParser(interpolation=None)
    shared = configparser.ConfigParser(interpolation=None)
    config.read(main / ".dvc" / "config.local")
    shared.read(main / ".dvc" / "config")
    if not config.has_option("cache", "dir"):
        _set(config, "cache", "dir", str(main / ".dvc" / "cache"))
    # DVC then stages what it writes instead of advising to do so in every log.
    _set(config, "core", "autostage", "true")
    section = f"'remote \"{LOCAL_REMOTE}\"'"
    if shared.has_section(section) and not config.has_option(section, "url"):
        _set(config, section, "url", str(settings.home / "remote"))
    for remote in {*shared.sections(), *config.sections()}:
        if remote.strip("'").startswith("remote "):
            _set(config, remote, "verify", "true")
    text = io.StringIO()
    config.write(text)
    write_text(path / ".dvc" / "config.local", text.getvalue())


def object_stores(path: Path) -> list[Path]:
    """Return the folders that hold DVC's objects by md5: a worktree's cache, then its remote.

    A remote that is no folder of this machine is not among them.
    """
    config = configparser.ConfigParser(interpolation=None)
    config.read((path / ".dvc" / "config", path / ".dvc" / "config.local"))
    places = [config.get("cache", "dir")]
    remote = f"'remote \"{config.get('core', 'remote', fallback='')}\"'"
    url = config.get(remote, "url", fallback="")
    if url and "://" not in url:
        places.append(url)
    return [path / ".dvc" / place / "files" / "md5" for place in places]


def _set(config: configparser.ConfigParser, section: str, key: str, value: str) -> None:
    if not config.has_section(section):
        config.add_section(section)
    config.set(section, key, value)


def is_published(settings: Settings, workspace: Workspace) -> bool:
    """Tell whether the run's tag holds the parameters and lock that the workspace has now."""
    tag = run_tag(workspace.run_id)
    if not tag_exists(settings.root, tag):
        return False
    return all(
        _blob(settings.root, f"{tag}:{name}") == git(workspace.path, "hash-object", name)
        for name in PUBLISHED_FILES
    )


def publish(settings: Settings, workspace: Workspace) -> str:
    """Push a run's outs, then commit and tag its parameters and lock; return the commit.

    The tag comes last: where it exists, `git checkout` of it and `dvc checkout` give back every
    byte. A run that is published as it stands is left alone; one whose stages ran again since
    (a cleared task) gets the tag anew, and the earlier state stays as `run/<id>.1`, `.2` ...
    """
    tag = run_tag(workspace.run_id)
    if is_published(settings, workspace):
        return git(settings.root, "rev-list", "-n", "1", tag)
    check_lock(workspace.path)
    _check_pointer(workspace.path)
    dvc(workspace.path, "push", "--quiet")
    git(workspace.path, "add", "--force", *PUBLISHED_FILES, *DATA_FILES, "failures")
    message = f"Run {workspace.run_id}"
    git_as_product(workspace.path, "commit", "--quiet", "--allow-empty", "-m", message)
    commit = head_commit(workspace.path)
    if tag_exists(settings.root, tag):
        earlier = len(git(settings.root, "tag", "--list", f"{tag}.*").splitlines()) + 1
        git(settings.root, "tag", f"{tag}.{earlier}", tag)
    git(settings.root, "tag", "--force", tag, commit)
    return commit


def _check_pointer(path: Path) -> None:
    """Refuse a pointer to the images that was cut: the run's commit could not give them back."""
    pointer = path / DATA_FILES[0]
    try:
        whole = is_hash(yaml.safe_load(pointer.read_text())["outs"][0]["md5"])
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError):
        whole = False
    if not whole or not (path / DATA_FILES[1]).is_file():
        raise PipelineError(
            f"{pointer} or its castings list is missing or damaged",
            hint="`zdm workspace plan` of another run brings the data version in whole",
        )


def _blob(root: Path, name: str) -> str:
    try:
        return git(root, "rev-parse", "--verify", "--quiet", name)
    except PipelineError:
        return ""
