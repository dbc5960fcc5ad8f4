from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zdm_ml.pipeline import reporter as module
from zdm_ml.pipeline.reporter import Progress, Reporter, duration
from zdm_ml.training.loop import EpochRecord

RECORD = EpochRecord(1, 0.5, 0.6, 0.75, 1e-3, 200.0, 4.0)


class Run:
    """Collects what a tracked run is told."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def epoch(self, record: EpochRecord) -> None:
        self.epochs.append(record.epoch)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def make(home: Path, run: Run, shown: list[Progress], *, nets: int = 1) -> Reporter:
    context: Any = SimpleNamespace(settings=SimpleNamespace(home=home, run_id="r1"))
    tracked: Any = run
    return Reporter(context, "luna", 4, nets, tracked, shown.append)


def test_an_epoch_is_one_line_with_the_time_left(
    tmp_path: Path, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    reporter = make(tmp_path, Run(), [])
    reporter.step(0, 10, 1)
    clock[0] += 30

    with caplog.at_level(logging.INFO, logger="zdm_ml"):
        reporter.epoch(RECORD)

    (line,) = caplog.messages
    assert line.startswith("luna: epoch 1/4  train loss 0.5000")
    assert line.endswith("200 images/s  1 min 30 s left")


def test_only_the_kept_net_is_tracked(tmp_path: Path, clock: list[float]) -> None:
    run = Run()
    reporter = make(tmp_path, run, [], nets=3)

    for net in range(3):
        reporter.begin(net)
        reporter.epoch(replace(RECORD, epoch=net + 1))

    assert run.epochs == [3]


def test_followers_see_the_share_of_all_nets(tmp_path: Path, clock: list[float]) -> None:
    shown: list[Progress] = []
    reporter = make(tmp_path, Run(), shown, nets=2)
    reporter.begin(1)

    reporter.step(5, 10, 1)

    assert (shown[-1].epoch, shown[-1].epochs) == (5, 8)
    assert json.loads((tmp_path / "progress" / "r1.json").read_text())["percent"] == 56.2


@pytest.mark.parametrize(
    ("seconds", "text"), [(40.2, "40 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
