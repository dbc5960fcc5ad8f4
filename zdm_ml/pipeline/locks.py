"""Locks between processes: one run of a stage at a time, one task per device."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel (Linux) to end this process when its parent dies, however that dies.

    A killed orchestrator worker would otherwise leave its training running beside the retry.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def die_with(pid: int) -> None:
    """End this process when process `pid` has ended, however many shells stand between the two.

    A thread sleeps in the kernel until then. Where there are no process file descriptors (outside
    Linux), nothing happens.
    """
    if not hasattr(os, "pidfd_open"):
        return
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
        return

    def wait() -> None:
        select.select([watched], [], [])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="die-with", daemon=True).start()


@contextmanager
def fence(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel frees when the process ends; wait while another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


@contextmanager
def claim_devices(
    folder: Path, devices: Sequence[str], *, every: bool = False, poll_seconds: float = 0.5
) -> Iterator[list[str]]:
    """Hold one free device of `devices`, or all of them, waiting until that is possible.

    Devices are locked in order, so two processes that want all of them cannot block each other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    locks = {device: FileLock(folder / f"device-{device}.lock") for device in devices}
    with ExitStack() as stack:
        if every:
            for lock in locks.values():
                stack.enter_context(lock)
            yield list(devices)
            return
        while True:
            for device, lock in locks.items():
                try:
                    stack.enter_context(lock.acquire(timeout=0))
                except Timeout:
                    continue
                yield [device]
                return
            time.sleep(poll_seconds)
