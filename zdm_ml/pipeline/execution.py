"""Running one stage of a run in its workspace: fenced, on its own device, with a failure record."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from zdm_ml.files import write_json, write_text
from zdm_ml.gpus import visible_devices
from zdm_ml.pipeline.commands import dvc_command
from zdm_ml.pipeline.dvcfile import Stage, read_pipeline
from zdm_ml.pipeline.locks import claim_devices, die_with_parent, fence
from zdm_ml.pipeline.plan import read_record
from zdm_ml.pipeline.workspace import Workspace, existing_workspace
from zdm_ml.settings import Settings

DEVICE_POOL = "gpu"
STAGE_PROCESS = "ZDM_STAGE_PROCESS"
"""Names the process that runs a stage: dvc and a shell stand between it and the stage's own."""

_KEPT_LINES = 15


def run_stage(
    settings: Settings,
    run_id: str,
    stage_name: str,
    *,
    environ: Mapping[str, str],
    say: Callable[[str], None],
) -> int:
    """Run a stage with `dvc repro -s`, passing its output on line by line; return its exit code.

    A stage that belongs to one model leaves a record in the failures folder unless it finishes,
    however it ends: the record is written first and removed last.
    """
    workspace = existing_workspace(settings, run_id)
    record = read_record(workspace)
    stage = read_pipeline(workspace.path).stage(stage_name)
    lock = settings.home / "locks" / f"{workspace.run_id}-{_file_name(stage)}.lock"
    with (
        fence(lock),
        failure_record(workspace, stage) as note,
        claimed_devices(settings, stage, environ) as devices,
    ):
        forced = workspace.path / ".zdm-forced" / _file_name(stage)
        force = ("--force",) if record.force and not forced.exists() else ()
        command = dvc_command("--wait-for-lock", "repro", "--single-item", *force, stage.name)
        variables = _environment(settings, workspace, environ, devices)
        code, lines = _stream(command, workspace.path, variables, say)
        if code != 0:
            note("; ".join(lines))
        elif force:
            write_text(forced, "")  # a task that is cleared later has nothing to do
    return code


@contextmanager
def failure_record(workspace: Workspace, stage: Stage) -> Iterator[Callable[[str], None]]:
    """Yield a function that says why the stage failed; where it is not called, it finished."""
    if stage.item is None:
        yield lambda message: None
        return
    folder = workspace.path / read_pipeline(workspace.path).paths["failures"]
    path = folder / f"{_file_name(stage)}.json"
    content = {"stage": stage.name, "model": stage.item}
    write_json(path, {**content, "message": "did not finish: it was killed or is still under way"})
    messages: list[str] = []
    yield messages.append
    if messages:
        write_json(path, {**content, "message": messages[-1]})
    else:
        path.unlink()


@contextmanager
def claimed_devices(
    settings: Settings, stage: Stage, environ: Mapping[str, str]
) -> Iterator[list[str]]:
    """Hold what the stage's pool stands for: GPUs where there are some, else the CPU's one slot."""
    if stage.airflow.get("pool") != DEVICE_POOL:
        yield []
        return
    everything = stage.airflow.get("pool_slots") == "all"
    slots = [str(index) for index in range(max(1, settings.gpu_slots))]
    # Whoever started the stack may have given it some of the machine's GPUs only.
    devices = visible_devices(environ) or slots
    with claim_devices(settings.home / "locks", devices, every=everything) as names:
        yield names


def scripts_first(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with this interpreter's scripts (`zdm`, `dvc`) first on the path."""
    scripts = str(Path(sys.executable).parent)
    return {**environ, "PATH": f"{scripts}{os.pathsep}{environ.get('PATH', os.defpath)}"}


def _environment(
    settings: Settings, workspace: Workspace, environ: Mapping[str, str], devices: list[str]
) -> dict[str, str]:
    variables = {
        **scripts_first(environ),
        "PYTHONUNBUFFERED": "1",
        "ZDM_ROOT": str(workspace.path),
        "ZDM_HOME": str(settings.home),
        "ZDM_RUN_ID": workspace.run_id,
        STAGE_PROCESS: str(os.getpid()),
    }
    if devices:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
    return variables


def _stream(
    command: list[str], path: Path, variables: Mapping[str, str], say: Callable[[str], None]
) -> tuple[int, list[str]]:
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    with subprocess.Popen(
        command,
        cwd=path,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=die_with_parent,  # safe: this process has no other thread
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            text = line.rstrip()
            say(text)
            if text:
                kept.append(text)
    return process.returncode, list(kept)


def _file_name(stage: Stage) -> str:
    return stage.name.replace("@", ".")
