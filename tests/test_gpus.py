from __future__ import annotations

from pathlib import Path

import pytest

from zdm_ml.gpus import count_gpus


def _driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_every_listed_gpu_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "GPU 0: H200 (UUID: a)\\n  MIG 1g (UUID: m)\\nGPU 1: H200 (UUID: b)\\n"
    _driver(tmp_path, monkeypatch, f"printf '{lines}'")

    assert count_gpus() == 2


def test_a_driver_that_fails_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(tmp_path, monkeypatch, "echo 'GPU access blocked'; exit 9")

    assert count_gpus() == 0


def test_no_driver_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert count_gpus() == 0
