"""Programs that outlive the process that starts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path


def detach(command: list[str], environment: Mapping[str, str], log: Path) -> int:
    """Start a program in a session of its own, which outlives this process; return its id.

    It gets no file of this process: joblib leaves an inheritable pipe open, and its tracker process
    lives, with this process' standard error, for as long as anybody holds that pipe.
    """
    return os.posix_spawn(
        command[0],
        command,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *((os.POSIX_SPAWN_CLOSE, file) for file in _inheritable_files()),
        ],
        setsid=True,
    )


def _inheritable_files() -> list[int]:
    """Return the open files, beyond the standard ones, that a started program would get."""
    found: list[int] = []
    for entry in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):
            if int(entry.name) > 2 and os.get_inheritable(int(entry.name)):
                found.append(int(entry.name))
    return found
