"""What the commands' tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def in_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run commands on this checkout, wherever the tests were started."""
    monkeypatch.setenv("ZDM_ROOT", str(project))
