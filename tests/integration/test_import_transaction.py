"""An import that is killed or runs out of disk leaves the version before it, and can be rerun."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from castings_desk import CastingsDesk, make_dataset

from zdm_ml.data.importing import import_data
from zdm_ml.data.versions import resolve, versions

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DISK_MIB = 48
IMAGES = 48


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other images than those of the first version."""
    return make_dataset(tmp_path_factory.mktemp("other") / "castings", seed=500)


def objects(store: Path) -> int:
    return sum(1 for _ in store.glob("files/md5/*/*"))


def moments(desk: CastingsDesk) -> dict[str, Callable[[], bool]]:
    """What can be seen from outside at each step of an import, in order."""
    incoming, branch = desk.root / ".zdm" / "incoming", desk.root / ".git/refs/heads/zdm/data"
    cache, remote = desk.root / ".dvc" / "cache", desk.root / ".zdm" / "remote"
    first, cached, pushed = branch.read_text(), objects(cache), objects(remote)
    return {
        "started": lambda: True,
        "staging": lambda: any(incoming.glob("*/.castings.*/fresh/train/*/*")),
        "staged": lambda: any(incoming.glob("*/castings/train")),
        "worktree": lambda: any(incoming.glob("*/tree/dvc.yaml")),
        "caching": lambda: objects(cache) > cached,
        "added": lambda: any(incoming.glob("*/tree/data/castings.dvc")),
        "pushing": lambda: objects(remote) > pushed,
        "pushed": lambda: objects(remote) == pushed + IMAGES + 1,
        "branch moved": lambda: branch.read_text() != first,
        "list gone": lambda: not (desk.root / "data" / "castings.csv").exists(),
        "placing": lambda: (desk.root / "data" / ".castings.incoming").exists(),
    }


@pytest.mark.parametrize(
    "moment",
    [
        *("staging", "staged", "worktree", "caching", "added"),
        *("pushing", "branch moved", "list gone", "placing"),
    ],
)
def test_an_import_killed_from_outside_leaves_a_whole_version_and_can_be_rerun(
    template: CastingsDesk, other: Path, tmp_path: Path, moment: str
) -> None:
    desk = template.copy(tmp_path / "project")
    first = resolve(desk.root)

    desk.kill_when(moments(desk)[moment], "zdm", "data", "import", str(other))

    assert first in versions(desk.root)
    import_data(desk.settings, other, desk.params)
    assert len(versions(desk.root)) == 2
    assert desk.holds(resolve(desk.root))
    assert desk.gives_back(first)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; skips where this account may not mount one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(mount)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)


def fill(disk: Path) -> Path:
    """Take all the space that a file system has left; returns the file that holds it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    assert shutil.disk_usage(disk).free == 0
    return filler


@pytest.mark.parametrize(
    "moment", ["started", "staging", "worktree", "caching", "pushing", "pushed"]
)
def test_a_disk_that_fills_up_leaves_a_whole_version_and_says_so(
    template: CastingsDesk, other: Path, small_disk: Path, moment: str
) -> None:
    desk = template.copy(small_disk / "project")
    first = resolve(desk.root)
    command = ("zdm", "data", "import", str(other))

    with desk.stopped_when(moments(desk)[moment], *command) as process:
        filler = fill(small_disk)
        os.killpg(process.pid, signal.SIGCONT)
        _, said = process.communicate()

    filler.unlink()
    assert process.returncode == 1
    assert "space" in said and "next:" in said, said
    assert "Traceback" not in said
    assert versions(desk.root) == [first]
    assert desk.holds(first)
    import_data(desk.settings, other, desk.params)
    assert desk.holds(resolve(desk.root))
    assert desk.gives_back(first)
