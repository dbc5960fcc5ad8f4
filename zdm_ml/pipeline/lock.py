"""dvc.lock: whether it holds all that a run planned, whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from zdm_ml.errors import PipelineError
from zdm_ml.pipeline.dvcfile import Stage, read_pipeline

HINT = "run the stages of the run again: clear its tasks, or `zdm workspace stage`"


def check_lock(path: Path) -> None:
    """Refuse a `dvc.lock` that was cut short: DVC would take what is left for the whole.

    Every stage of the pipeline at `path` must be in it, with each of its outs, whose hash is whole
    and whose size is that of the file. Stages of a model with a failure record may be absent.
    """
    lock = path / "dvc.lock"
    try:
        stages = dict(yaml.safe_load(lock.read_text())["stages"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise PipelineError(f"{lock} is missing or damaged", hint=HINT) from error
    pipeline = read_pipeline(path)
    failed = _failed_items(path / pipeline.paths["failures"])
    problems = [
        f"{stage.name} ({problem})"
        for stage in pipeline.stages
        if stage.name in stages or stage.item not in failed
        if (problem := _problem(path, stage, stages.get(stage.name)))
    ]
    if problems:
        raise PipelineError(f"{lock} holds incomplete stages: {', '.join(problems)}", hint=HINT)


def is_hash(value: Any) -> bool:
    """Tell whether a value is a whole md5 as DVC writes it, of a file or of a folder."""
    return bool(re.fullmatch(r"[0-9a-f]{32}(\.dir)?", str(value)))


def _failed_items(folder: Path) -> set[str]:
    """Return the models that have a failure record, named `<group>.<model>.json`."""
    return {path.stem.split(".", 1)[1] for path in folder.glob("*.*.json")}


def _problem(path: Path, stage: Stage, locked: Any) -> str:
    """Return what a stage lacks in the lock, or nothing."""
    if not isinstance(locked, Mapping) or "cmd" not in locked:
        return "absent"
    outs = locked.get("outs")
    found = {
        str(out["path"]): out
        for out in (outs if isinstance(outs, list) else [])
        if isinstance(out, Mapping) and "path" in out
    }
    for name in stage.outs:
        entry = found.get(name)
        if entry is None:
            return f"without {name}"
        if not is_hash(entry.get("md5")) or entry.get("size") != _size(path / name):
            return f"with another {name}"
    return ""


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else -1
