"""Planning a run: make its workspace, and find out once what is stale."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from zdm_ml.data.checkout import checkout_data
from zdm_ml.data.versions import POINTER, resolve
from zdm_ml.errors import PipelineError
from zdm_ml.files import read_json, sha256_json, write_json, write_text
from zdm_ml.pipeline.commands import dvc, dvc_json, git, head_commit, uncommitted
from zdm_ml.pipeline.dvcfile import Pipeline, Stage, read_pipeline
from zdm_ml.pipeline.profiles import run_params
from zdm_ml.pipeline.workspace import Workspace, add_worktree, workspace_of
from zdm_ml.settings import Settings, make_home

logger = logging.getLogger(__name__)

EARLIER_RUNS = 20
"""How many earlier runs are looked at for outs that are still current."""


@dataclass(frozen=True)
class RunRequest:
    """What the form or the command line asks for; `models` empty means all."""

    run_id: str
    profile: str
    models: tuple[str, ...] = ()
    data_version: str = "latest"
    seed: int | None = None
    force: bool = False
    note: str = ""


@dataclass(frozen=True)
class RunRecord:
    """What a run works on and what it has to do; written into its workspace."""

    run_id: str
    profile: str
    models: list[str]
    data_md5: str
    data_version: str
    git_commit: str
    params_hash: str
    seed: int
    force: bool
    note: str
    stages: list[str]
    stale: list[str]
    started: str
    workspace: str
    mlflow_run_id: str | None = None


def read_record(workspace: Workspace) -> RunRecord:
    """Return what `plan` decided for a run."""
    return RunRecord(**read_json(workspace.record))


def write_record(workspace: Workspace, record: RunRecord) -> None:
    """Write what `plan` decided into the workspace."""
    write_json(workspace.record, asdict(record))


def plan_run(settings: Settings, request: RunRequest) -> RunRecord:
    """Make the workspace of a run and decide which stages are stale.

    Planning the same run again returns the first answer, so a retried task changes nothing.
    """
    make_home(settings.home)
    workspace = workspace_of(settings, request.run_id)
    if workspace.record.is_file():
        return read_record(workspace)
    changed = uncommitted(settings.root)
    if changed:
        logger.warning("not part of this run, because not committed: %s", ", ".join(changed))
    version = resolve(settings.root, request.data_version)
    add_worktree(settings, workspace.path)
    _write_params(workspace.path, request)
    checkout_data(settings, workspace.path, version.commit)
    pipeline = read_pipeline(workspace.path)
    stale = _prepare_outs(settings, workspace, pipeline, force=request.force)
    values = yaml.safe_load((workspace.path / "params.yaml").read_text())
    record = RunRecord(
        run_id=workspace.run_id,
        profile=values["profile"],
        models=list(pipeline.items),
        data_md5=version.md5,
        data_version=version.commit,
        git_commit=head_commit(workspace.path),
        params_hash=hash_params(values),
        seed=values["seed"],
        force=request.force,
        note=request.note,
        stages=[stage.name for stage in pipeline.stages],
        stale=stale,
        started=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        workspace=str(workspace.path),
    )
    write_record(workspace, record)
    return record


def hash_params(values: Mapping[str, Any]) -> str:
    """Return the hash of what params.yaml says of the model itself.

    Without section `promote`: who may approve decides nothing about a model, which stays the same
    version.
    """
    return sha256_json({key: value for key, value in values.items() if key != "promote"})


def _write_params(path: Path, request: RunRequest) -> None:
    params = path / "params.yaml"
    text = run_params(
        params.read_text(), path, profile=request.profile, models=request.models, seed=request.seed
    )
    write_text(params, text)


def _prepare_outs(
    settings: Settings, workspace: Workspace, pipeline: Pipeline, *, force: bool
) -> list[str]:
    """Bring back the outs of stages that are current; return the names of all others."""
    every = [stage.name for stage in pipeline.stages]
    lock = None if force else _best_lock(settings, workspace)
    if lock is None:
        (workspace.path / "dvc.lock").unlink(missing_ok=True)
        return every
    write_text(workspace.path / "dvc.lock", yaml.safe_dump(lock, sort_keys=False))
    stale = stale_stages(pipeline, dvc_json(workspace.path, "status", "--json"), lock["stages"])
    current = [stage for stage in pipeline.stages if stage.name not in stale]
    kept = {stage.name: lock["stages"][stage.name] for stage in current}
    write_text(
        workspace.path / "dvc.lock", yaml.safe_dump({**lock, "stages": kept}, sort_keys=False)
    )
    if current and not _restore(workspace.path, current):
        (workspace.path / "dvc.lock").unlink()
        return every
    return [name for name in every if name in stale]


def stale_stages(pipeline: Pipeline, status: dict[str, Any], locked: dict[str, Any]) -> set[str]:
    """Return the stages whose outs in the lock no longer follow from code, data and parameters.

    `status` is `dvc status --json` of a workspace without outs. There every out reads "deleted",
    and so does a dep that is an upstream stage's out: neither says that the stage is stale.
    """
    stale: set[str] = set()
    for stage in pipeline.stages:
        changed = any(_is_change(entry, pipeline, stage) for entry in status.get(stage.name, []))
        if stage.name not in locked or changed or stale.intersection(stage.upstream):
            stale.add(stage.name)
    return stale


def _is_change(entry: Any, pipeline: Pipeline, stage: Stage) -> bool:
    if not isinstance(entry, dict):
        return True
    if set(entry) == {"changed outs"}:
        return False
    if set(entry) != {"changed deps"}:
        return True
    upstream_outs = [out for name in stage.upstream for out in pipeline.stage(name).outs]
    for dep, state in entry["changed deps"].items():
        produced = any(out == dep or out.startswith(f"{dep}/") for out in upstream_outs)
        if state != "deleted" or not produced:
            return True
    return False


def _best_lock(settings: Settings, workspace: Workspace) -> dict[str, Any] | None:
    """Return the lock of the earlier run most like this one: same data and parameters first."""
    tags = git(settings.root, "tag", "--list", "run/*", "--sort=-creatordate").splitlines()
    params, data = (git(workspace.path, "hash-object", name) for name in ("params.yaml", POINTER))
    candidates: list[tuple[int, int, str]] = []
    for age, tag in enumerate(tags[:EARLIER_RUNS]):
        same_params = _blob(settings.root, tag, "params.yaml") == params
        same_data = _blob(settings.root, tag, POINTER) == data
        candidates.append((-(2 * same_data + same_params), age, tag))
    for _, _, tag in sorted(candidates):
        lock = yaml.safe_load(git(settings.root, "show", f"{tag}:dvc.lock"))
        if isinstance(lock, dict) and lock.get("stages"):
            return lock
    return None


def _blob(root: Path, tag: str, name: str) -> str:
    try:
        return git(root, "rev-parse", f"{tag}:{name}")
    except PipelineError:
        return ""


def _restore(path: Path, stages: Sequence[Stage]) -> bool:
    outs = [out for stage in stages for out in stage.outs]
    for command in ("checkout", "pull"):
        try:
            dvc(path, command, "--quiet", "--force", *outs)
        except PipelineError as error:
            logger.warning("%s", error)
        else:
            return True
    return False
