"""The prediction store: every answer is recorded without making it wait."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import DateTime, Engine, Float, String, create_engine, event, insert
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    StatementError,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from zdm_ml.errors import ConfigError

log = logging.getLogger(__name__)

QUEUE_ROWS = 10_000
BATCH_ROWS = 256
RETRY_SECONDS = (0.5, 30.0)
"""First and longest pause between attempts to reach a database that does not answer."""

CLOSING_PAUSE = 0.2


class Base(MappedAsDataclass, DeclarativeBase):
    """Holds the metadata of the store's tables."""


class PredictionRow(Base):
    """One answer; `time` is UTC, `ms` milliseconds from the whole body to the answer."""

    __tablename__ = "predictions"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    time: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)
    image_sha256: Mapped[str] = mapped_column(String(64), index=True)
    verdict: Mapped[str] = mapped_column(String(16))
    score: Mapped[float] = mapped_column(Float(53))
    threshold: Mapped[float] = mapped_column(Float(53))
    model_name: Mapped[str] = mapped_column(String(255))
    model_version: Mapped[str] = mapped_column(String(64), index=True)
    run_id: Mapped[str] = mapped_column(String(255))
    data_md5: Mapped[str] = mapped_column(String(64))
    git_commit: Mapped[str] = mapped_column(String(64))
    profile: Mapped[str] = mapped_column(String(32))
    ms: Mapped[float] = mapped_column(Float(53))


@dataclass
class Counts:
    """Rows written and rows given up since the start."""

    written: int = 0
    dropped: int = 0


class PredictionStore:
    """A bounded queue and the one thread that writes it to the database in batches."""

    def __init__(self, url: str, *, queue_rows: int = QUEUE_ROWS) -> None:
        self._engine = _engine(url)
        self._queue: queue.Queue[PredictionRow] = queue.Queue(queue_rows)
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._lock = threading.Lock()
        self._table_exists = False
        self.counts = Counts()
        self._thread = threading.Thread(target=self._run, name="prediction-store", daemon=True)

    @property
    def depth(self) -> int:
        """Return the rows that wait to be written."""
        return self._queue.qsize()

    def start(self) -> None:
        """Begin to write; a database that is down is waited for, it never raises here."""
        self._thread.start()

    def record(self, row: PredictionRow) -> None:
        """Queue a row; a full queue drops it, counted and logged."""
        try:
            self._queue.put_nowait(row)
        except queue.Full:
            self._drop(1, "the queue is full")

    def close(self, seconds: float = 5.0) -> None:
        """Write what is queued, for at most `seconds`; count and log what is left."""
        self._deadline = time.monotonic() + seconds
        self._closing.set()
        self._thread.join(seconds + 1)
        if left := len(self._take(self._queue.qsize())):
            self._drop(left, "the server stopped")
        self._engine.dispose()

    def _run(self) -> None:
        while not (self._closing.is_set() and self._queue.empty()):
            try:
                rows = [self._queue.get(timeout=0.2)]
            except queue.Empty:
                continue
            self._write_until_done(rows + self._take(BATCH_ROWS - 1))

    def _take(self, limit: int) -> list[PredictionRow]:
        rows: list[PredictionRow] = []
        try:
            while len(rows) < limit:
                rows.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return rows

    def _write_until_done(self, rows: Sequence[PredictionRow]) -> None:
        """Try until written, refused for good, or the deadline of `close` has passed."""
        pause, longest = RETRY_SECONDS
        while error := self._attempt(rows):
            if not _may_pass(error) or time.monotonic() > self._deadline:
                self._drop(len(rows), str(error))
                return
            log.warning("%d predictions wait for their store: %s", self.depth + len(rows), error)
            if self._closing.is_set():
                time.sleep(CLOSING_PAUSE)
            else:
                self._closing.wait(pause)
            pause = min(pause * 2, longest)

    def _attempt(self, rows: Sequence[PredictionRow]) -> Exception | None:
        try:
            self._write(rows)
        except Exception as error:  # whatever a driver raises, the thread lives on
            return error
        self.counts.written += len(rows)
        return None

    def _write(self, rows: Sequence[PredictionRow]) -> None:
        if not self._table_exists:
            Base.metadata.create_all(self._engine)
            self._table_exists = True
        try:
            self._insert(rows)
        except IntegrityError:
            # A connection lost during a commit leaves it open whether the rows are there.
            for row in rows:
                self._insert_unless_there(row)

    def _insert(self, rows: Sequence[PredictionRow]) -> None:
        with self._engine.begin() as connection:
            connection.execute(insert(PredictionRow), [asdict(row) for row in rows])

    def _insert_unless_there(self, row: PredictionRow) -> None:
        try:
            self._insert([row])
        except IntegrityError:
            log.debug("prediction %s is already stored", row.id)

    def _drop(self, rows: int, reason: str) -> None:
        with self._lock:
            first = self.counts.dropped == 0
            before, self.counts.dropped = self.counts.dropped, self.counts.dropped + rows
        # One line per thousand: a database that is down must not fill the log as well.
        if first or before // 1000 != self.counts.dropped // 1000:
            log.error("%d predictions were not stored: %s", self.counts.dropped, reason)


def _may_pass(error: Exception) -> bool:
    """Return whether waiting can help: not when the database understood and refused the rows."""
    if isinstance(error, OperationalError) or not isinstance(error, StatementError):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _engine(url: str) -> Engine:
    try:
        engine = create_engine(url, pool_pre_ping=True, hide_parameters=True)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(
            f"prediction store: {error}",
            hint="set ZDM_STORE_URL to an SQLAlchemy URL and install its driver",
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _write_ahead)
    return engine


def _write_ahead(connection: sqlite3.Connection, _: object) -> None:
    """Let readers of a SQLite store work while it is written."""
    connection.execute("PRAGMA journal_mode=WAL")
