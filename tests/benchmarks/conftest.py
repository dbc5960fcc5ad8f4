"""Fixtures of the tests of benchmarks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture
def load(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module of benchmarks/, which is no package."""
    monkeypatch.syspath_prepend(project / "benchmarks")
    return importlib.import_module


@pytest.fixture
def bench(load: Callable[[str], ModuleType]) -> Iterator[Any]:
    """A bench at toy size, on the CPU."""
    with load("bench").open_bench(torch.device("cpu"), toy=True) as toy:
        yield toy
