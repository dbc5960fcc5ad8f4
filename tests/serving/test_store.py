import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from zdm_ml.errors import ConfigError
from zdm_ml.serving.store import PredictionRow, PredictionStore


def row(name: str) -> PredictionRow:
    return PredictionRow(
        id=name,
        time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        image_sha256="a" * 64,
        verdict="defect",
        score=0.75,
        threshold=0.5,
        model_name="casting-inspector",
        model_version="7",
        run_id="run-7",
        data_md5="b" * 32,
        git_commit="c" * 40,
        profile="full",
        ms=12.5,
    )


def stored(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        names = [name for (name,) in connection.execute("SELECT id FROM predictions ORDER BY id")]
    connection.close()
    return names


def wait_for(fact: Callable[[], bool], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.01)
    return fact()


def test_close_writes_what_is_queued(tmp_path: Path) -> None:
    store = PredictionStore(f"sqlite:///{tmp_path / 'p.db'}")
    store.start()

    for index in range(700):
        store.record(row(f"{index:04}"))
    store.close()

    assert len(stored(tmp_path / "p.db")) == store.counts.written == 700


def test_every_column_comes_back_as_it_was_given(tmp_path: Path) -> None:
    store = PredictionStore(f"sqlite:///{tmp_path / 'p.db'}")
    store.start()

    store.record(row("x"))
    store.close()

    connection = sqlite3.connect(tmp_path / "p.db")
    connection.row_factory = sqlite3.Row
    (found,) = connection.execute("SELECT * FROM predictions")
    connection.close()
    assert found["time"].startswith("2026-01-02 03:04:05")
    assert (found["score"], found["threshold"], found["ms"]) == (0.75, 0.5, 12.5)
    assert (found["model_version"], found["run_id"]) == ("7", "run-7")


def test_a_full_queue_drops_counts_and_logs_without_blocking(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = PredictionStore(f"sqlite:///{tmp_path / 'p.db'}", queue_rows=2)

    with caplog.at_level(logging.ERROR, "zdm_ml"):
        for name in "abcde":
            store.record(row(name))

    assert (store.depth, store.counts.dropped) == (2, 3)
    assert len(caplog.records) == 1


def test_a_locked_database_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zdm_ml.serving.store.RETRY_SECONDS", (0.05, 0.1))
    store = PredictionStore(f"sqlite:///{tmp_path / 'p.db'}?timeout=0.05")
    lock = sqlite3.connect(tmp_path / "p.db", isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    threading.Timer(0.4, lock.rollback).start()
    store.start()

    store.record(row("x"))

    assert wait_for(lambda: store.counts.written == 1)
    store.close()
    lock.close()
    assert stored(tmp_path / "p.db") == ["x"]


def test_close_gives_up_at_its_deadline_and_counts_what_is_lost(tmp_path: Path) -> None:
    store = PredictionStore(f"sqlite:///{tmp_path / 'no-such-folder' / 'p.db'}")
    store.start()
    for name in "abc":
        store.record(row(name))

    start = time.monotonic()
    store.close(seconds=0.5)

    assert time.monotonic() - start < 3
    assert (store.counts.written, store.counts.dropped) == (0, 3)


def test_rows_that_do_not_fit_the_table_are_given_up_at_the_deadline(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "p.db")
    connection.execute("CREATE TABLE predictions (id TEXT PRIMARY KEY, time TEXT NOT NULL)")
    connection.close()
    store = PredictionStore(f"sqlite:///{tmp_path / 'p.db'}")
    store.start()

    store.record(row("x"))
    store.close(seconds=0.3)

    assert store.counts.dropped == 1


def test_a_batch_that_is_partly_there_already_is_completed(tmp_path: Path) -> None:
    first = PredictionStore(f"sqlite:///{tmp_path / 'p.db'}")
    first.start()
    first.record(row("a"))
    first.close()
    second = PredictionStore(f"sqlite:///{tmp_path / 'p.db'}")

    second.record(row("a"))
    second.record(row("b"))
    second.start()
    second.close()

    assert stored(tmp_path / "p.db") == ["a", "b"]


@pytest.mark.parametrize("url", ["no url", "nosuchdialect://host/db"])
def test_an_unusable_url_is_an_error_that_names_the_variable(url: str) -> None:
    with pytest.raises(ConfigError, match="ZDM_STORE_URL"):
        PredictionStore(url)
