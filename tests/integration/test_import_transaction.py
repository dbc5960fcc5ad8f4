"""An import that is killed or runs out of disk leaves the version before it, and can be rerun."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from castings_desk import CastingsDesk, make_dataset

from zdm_ml.data.importing import import_data
from zdm_ml.data.versions import resolve, versions

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DISK_MIB = 24


@pytest.fixture(scope="module")
def template(
    make_checkout: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> CastingsDesk:
    """A checkout with one data version."""
    desk = CastingsDesk(make_checkout())
    source = make_dataset(tmp_path_factory.mktemp("dataset") / "castings")
    import_data(desk.settings, source, desk.params)
    return desk


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("other") / "castings", seed=500)


def moments(desk: CastingsDesk, first: str) -> dict[str, Callable[[], bool]]:
    incoming, branch = desk.root / ".zdm" / "incoming", desk.root / ".git/refs/heads/zdm/data"
    return {
        "staging": lambda: any(incoming.glob("*/.castings.*/fresh/train/*/*")),
        "staged": lambda: any(incoming.glob("*/castings/train")),
        "worktree": lambda: any(incoming.glob("*/tree/dvc.yaml")),
        "adding": lambda: any(incoming.glob("*/tree/.dvc/tmp/*")),
        "added": lambda: any(incoming.glob("*/tree/data/castings.dvc")),
        "branch moved": lambda: branch.read_text().strip() != first,
        "placing": lambda: (desk.root / "data" / ".castings.incoming").exists(),
        "list gone": lambda: not (desk.root / "data" / "castings.csv").exists(),
    }


@pytest.mark.parametrize(
    "moment",
    [
        *("staging", "staged", "worktree", "adding", "added"),
        *("branch moved", "placing", "list gone"),
    ],
)
def test_an_import_killed_from_outside_leaves_a_whole_version(
    template: CastingsDesk, other: Path, tmp_path: Path, moment: str
) -> None:
    desk = template.copy(tmp_path / "project")
    first = resolve(desk.root)
    reached = moments(desk, first.commit)[moment]
    with subprocess.Popen(
        ["zdm", "data", "import", str(other)],
        cwd=desk.root,
        env=desk.environ,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while not reached() and process.poll() is None:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    assert first in versions(desk.root)
    assert desk.whole()
    desk.run("zdm", "data", "import", str(other))

    assert len(versions(desk.root)) == 2
    assert desk.whole()


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


@pytest.mark.parametrize("free_kib", [64, 900, 1900, 2100, 2300])
def test_a_full_disk_leaves_a_whole_version(
    template: CastingsDesk, other: Path, small_disk: Path, free_kib: int
) -> None:
    """With more and more room, the import fails in staging, adding, pushing or committing."""
    desk = template.copy(small_disk / "project")
    first = resolve(desk.root)
    filler = small_disk / "filler"
    free = shutil.disk_usage(small_disk).free - free_kib * 1024
    filler.write_bytes(b"\0" * max(0, free))

    done = desk.run("zdm", "data", "import", str(other), "--json", check=False)

    filler.unlink()
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or "next:" in done.stderr
    assert first in versions(desk.root)
    assert desk.whole()
    again = json.loads(desk.run("zdm", "data", "import", str(other), "--json").stdout)
    assert again["data_md5"] != first.md5
    assert len(versions(desk.root)) == 2
    assert desk.whole()
