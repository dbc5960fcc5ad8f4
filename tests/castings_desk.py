"""A checkout with a small data version, and the commands that a person types in it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zdm_ml.data.checkout import checkout_version
from zdm_ml.data.integrity import find_damage
from zdm_ml.data.versions import DataVersion, entries_of
from zdm_ml.params import Params, load_params
from zdm_ml.settings import Settings, load_settings

BIN = Path(sys.executable).parent
NO_MLFLOW = "http://127.0.0.1:1"
CASTINGS_PER_CLASS = 12
FOLDERS = {"def_front": "D", "ok_front": "K"}


def picture(seed: int) -> bytes:
    """Return a 48 px JPEG of noise, another one for each seed."""
    buffer = io.BytesIO()
    levels = np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)
    Image.fromarray(levels).save(buffer, "JPEG")
    return buffer.getvalue()


def make_dataset(root: Path, seed: int = 0) -> Path:
    """Write a dataset in Kaggle's layout with parts.csv: 12 castings a class, 2 images each."""
    records = []
    for folder, letter in FOLDERS.items():
        for number in range(2 * CASTINGS_PER_CLASS):
            split = "test" if number % 4 == 0 else "train"
            path = f"{split}/{folder}/cast_{letter}_{number}.jpeg"
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(picture(seed + 1000 * (letter == "K") + number))
            records.append((path, f"{letter}{number // 2}"))
    write_parts(root, dict(records))
    return root


def write_parts(root: Path, parts: Mapping[str, str]) -> None:
    """Write parts.csv; the kind of each defect is `pit`."""
    lines = [(path, part, "pit" if "def_front" in path else "") for path, part in parts.items()]
    with (root / "parts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "part", "kinds"), *lines])


@dataclass
class CastingsDesk:
    """A checkout; everything of it lies below `root`, so that it can be copied."""

    root: Path

    @property
    def settings(self) -> Settings:
        return load_settings({}, self.root)

    @property
    def params(self) -> Params:
        return load_params(self.root / "params.yaml")

    @property
    def castings(self) -> Path:
        return self.root / "data" / "castings"

    @property
    def inbox(self) -> Path:
        return self.root / ".zdm" / "inbox"

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a shell in which no stack runs."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ZDM_", "MLFLOW"))}
        return {
            **inherited,
            "PATH": f"{BIN}{os.pathsep}{inherited['PATH']}",
            "MLFLOW_TRACKING_URI": NO_MLFLOW,
        }

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.root, env=self.environ, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def json(self, *command: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run(*command, "--json").stdout.splitlines()[-1])
        return answer

    def arrive(self, name: str, content: bytes, age_seconds: float = 3600.0) -> Path:
        """Put a file into the inbox, `class folder/name`, written some time ago."""
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        then = path.stat().st_mtime - age_seconds
        os.utime(path, (then, then))
        return path

    def copy(self, root: Path) -> CastingsDesk:
        """Return a copy of the checkout with all its state."""
        shutil.copytree(self.root, root, symlinks=True)
        return CastingsDesk(root)

    @contextmanager
    def stopped_when(
        self, reached: Callable[[], bool], *command: str
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a command and freeze its whole process group at a moment of its work.

        Fails if the command ends before the moment, so that whoever kills it kills it alive.
        """
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                while not reached():
                    assert process.poll() is None, "the command ended before its moment"
                    time.sleep(0.001)
                os.killpg(process.pid, signal.SIGSTOP)
                assert process.poll() is None, "the command had ended when it was to be frozen"
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def kill_when(self, reached: Callable[[], bool], *command: str) -> None:
        """Start a command and end its whole process group with SIGKILL at a moment of its work."""
        with self.stopped_when(reached, *command) as process:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL

    def holds(self, version: DataVersion) -> bool:
        """Tell whether git is undamaged and the checkout holds every byte of a version."""
        self.run("git", "fsck", "--no-dangling")
        entries = entries_of(self.root, version.commit) or []
        return bool(entries) and not find_damage(self.castings, entries)

    def gives_back(self, version: DataVersion) -> bool:
        """Tell whether a version comes whole out of DVC's cache and remote."""
        checkout_version(self.settings, version.commit)
        return self.holds(version)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
