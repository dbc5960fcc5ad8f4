from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from zdm_ml.pipeline.locks import claim_devices, fence


def test_two_tasks_take_two_devices(tmp_path: Path) -> None:
    with (
        claim_devices(tmp_path, ["0", "1"]) as first,
        claim_devices(tmp_path, ["0", "1"]) as second,
    ):
        assert sorted([*first, *second]) == ["0", "1"]


def test_a_third_task_waits_until_a_device_is_free(tmp_path: Path) -> None:
    claimed: list[str] = []

    def claim() -> None:
        with claim_devices(tmp_path, ["0"], poll_seconds=0.01) as devices:
            claimed.extend(devices)

    waiting = threading.Thread(target=claim)
    with claim_devices(tmp_path, ["0"]):
        waiting.start()
        time.sleep(0.1)
        assert claimed == []
    waiting.join(timeout=5)

    assert claimed == ["0"]


def test_a_task_that_wants_every_device_gets_them_all(tmp_path: Path) -> None:
    with claim_devices(tmp_path, ["0", "1", "2"], every=True) as devices:
        assert devices == ["0", "1", "2"]


def test_the_fence_opens_when_its_holder_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "stage.lock"
    code = (
        "import sys, time, pathlib\n"
        "from zdm_ml.pipeline.locks import fence\n"
        "with fence(pathlib.Path(sys.argv[1])):\n"
        "    sys.stdout.write('held\\n')\n"
        "    sys.stdout.flush()\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()

    with fence(lock):
        assert lock.exists()


@pytest.mark.parametrize(
    ("bond", "shell"), [("die_with_parent()", False), ("die_with(int(sys.argv[2]))", True)]
)
def test_a_process_dies_with_the_one_that_started_it(
    tmp_path: Path, bond: str, shell: bool
) -> None:
    """Killed from outside; with a shell between the two, as dvc starts its stages."""
    child = (
        "import os, pathlib, sys, time\n"
        "from zdm_ml.pipeline.locks import die_with, die_with_parent\n"
        f"{bond}\n"
        "pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    script = tmp_path / "child.py"
    script.write_text(child)
    pid_file = tmp_path / "pid"
    line = f"{sys.executable} {script} {pid_file}"
    parent = (
        "import os, subprocess, sys, time\n"
        f"line = {line!r} + f' {{os.getpid()}}'\n"
        f"subprocess.Popen(line + '; true' if {shell} else line.split(), shell={shell})\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        _wait(lambda: pid_file.exists() and pid_file.read_text() != "")
        process.send_signal(signal.SIGKILL)
        process.wait()

    _wait(lambda: not _alive(int(pid_file.read_text())))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _wait(holds: object, seconds: float = 10) -> None:
    assert callable(holds)
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
