"""The ledger: one line of JSON per decision about the champion, never rewritten."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zdm_ml.registry.decision import Check

logger = logging.getLogger(__name__)

MOVES = ("promote", "rollback")


def append(
    path: Path,
    *,
    action: str,
    old: str | None,
    new: str | None,
    reason: str,
    checks: Sequence[Check] = (),
    who: str | None = None,
    digest: str | None = None,
) -> None:
    """Add a line and flush it to disk; callers hold the promotion lock.

    `who` is the person who decided, this process's user unless given; `digest` the package.
    """
    entry = {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "action": action,
        "from": old,
        "to": new,
        "reason": reason,
        "checks": [asdict(item) for item in checks],
        "who": who or _who(),
        "digest": digest,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        # A line that a crash cut short must not swallow this one.
        file.seek(0, os.SEEK_END)
        if file.tell() and not _ends_line(path):
            file.write(b"\n")
        file.write((json.dumps(entry, sort_keys=True) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """Return the entries, the oldest first; a line cut short by a crash is skipped and told."""
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text().splitlines() if path.is_file() else [], 1):
        try:
            entries.append(dict(json.loads(line)))
        except ValueError:
            logger.warning("%s, line %d is not JSON and is skipped", path, number)
    return entries


def last_move(path: Path) -> dict[str, Any] | None:
    """Return the latest entry that moved the alias `champion`."""
    moves = [entry for entry in read(path) if entry["action"] in MOVES]
    return moves[-1] if moves else None


def predecessor(path: Path, version: str) -> str | None:
    """Return which version was champion before `version` became it, as far as the ledger knows."""
    for entry in reversed(read(path)):
        if entry["action"] in MOVES and entry["to"] == version and entry["from"] != version:
            return str(entry["from"]) if entry["from"] else None
    return None


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
