from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from zdm_ml.pipeline import retention
from zdm_ml.pipeline.commands import git
from zdm_ml.pipeline.retention import DAYS, collect
from zdm_ml.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A repository without runs; its DVC cache is not looked at."""
    monkeypatch.setattr(retention, "dvc", lambda *_: "")
    git(tmp_path, "init", "--quiet")
    return load_settings({}, tmp_path)


def shelf(home: Path, name: str, *, made: float, used: float) -> Path:
    """Make a shelf of features as old as these days say."""
    folder = home / "features" / name
    folder.mkdir(parents=True)
    (folder / "0-0-abc.npy").write_bytes(b"features")
    (folder / "lock").touch()
    for path, days in ((folder / "lock", used), (folder, made)):
        os.utime(path, (time.time() - days * 86400,) * 2)
    return folder


def test_features_go_a_week_after_their_last_use(settings: Settings) -> None:
    """Reading them leaves the time of their folder as it was."""
    in_use = shelf(settings.home, "in-use", made=DAYS + 30, used=DAYS - 1)
    unused = shelf(settings.home, "unused", made=DAYS + 30, used=DAYS + 1)

    collect(settings, keep=1, needed=())

    assert (in_use.is_dir(), unused.exists()) == (True, False)


def test_checkpoints_go_a_week_after_they_were_written(settings: Settings) -> None:
    old, fresh = (settings.home / "checkpoints" / name for name in ("old", "fresh"))
    for folder, days in ((old, DAYS + 1), (fresh, DAYS - 1)):
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - days * 86400,) * 2)

    collected = collect(settings, keep=1, needed=())

    assert (fresh.is_dir(), old.exists(), collected.checkpoints) == (True, False, 1)
