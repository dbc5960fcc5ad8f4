"""The ledger: one line of JSON per decision about the champion, chained and never rewritten."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from zdm_ml.errors import RegistryError
from zdm_ml.registry import chain
from zdm_ml.registry.decision import Check
from zdm_ml.settings import Settings

logger = logging.getLogger(__name__)

MOVES = ("promote", "rollback")


class Anchor(Protocol):
    """Where the last line is named, out of reach of whoever can write the file."""

    def read(self) -> str | None:
        """Return what was written last, or None."""

    def write(self, text: str) -> None:
        """Replace it."""


def ledger_path(settings: Settings) -> Path:
    """Return the file with every decision about the champion."""
    return settings.home / "ledger.jsonl"


def append(
    path: Path,
    anchor: Anchor,
    *,
    action: str,
    old: str | None,
    new: str | None,
    digest: str | None,
    reason: str,
    checks: Sequence[Check] = (),
    who: str | None = None,
) -> None:
    """Add a line, flush it to disk, then anchor it; callers hold the promotion lock.

    `digest` is the digest of the package of version `new`; `who` asked for the decision, if that
    is not the account. A broken ledger gets its line as well, but its anchor stays where it was.
    """
    move = {"action": action, "from": old, "to": new, "package_digest": digest, "reason": reason}
    _add(path, chain.extension(_content(path), move | _circumstances(checks, who)))
    settle(path, anchor)


def complete(
    path: Path,
    anchor: Anchor,
    champion: str,
    digest: str | None,
    *,
    action: str = "promote",
    reason: str = "the line of its promotion was missing",
    who: str | None = None,
) -> None:
    """Add and anchor what a crash after the alias had moved left out, if anything."""
    last = last_move(path)
    if last is not None and last.get("to") == champion:
        settle(path, anchor)
        return
    old, found = (last or {}).get("to"), f"found as champion; {reason}"
    append(path, anchor, action=action, old=old, new=champion, digest=digest, reason=found, who=who)


def settle(path: Path, anchor: Anchor) -> None:
    """Anchor the last line, unless the file does not follow from what was anchored before."""
    report = chain.verify(_content(path), anchor.read())
    if report.fault is not None:
        logger.error("%s, %s; `zdm ledger --verify` says what to do", path, report.fault)
    elif report.head is not None and report.behind:
        anchor.write(report.head)


def accept(path: Path, anchor: Anchor, *, reason: str, who: str | None = None) -> chain.Fault:
    """Begin the chain anew after a break, on the record, and return what the break was."""
    fault = chain.verify(_content(path), anchor.read()).fault
    if fault is None:
        raise RegistryError(f"{path} is intact", hint="there is nothing to accept")
    found = [Check("ledger", "failed", str(fault))]
    entry = {"action": chain.ACCEPT, "from": None, "to": None, "reason": reason}
    line = entry | {"package_digest": None} | _circumstances(found, who)
    _add(path, chain.extension(_content(path), line, accept=True))
    anchor.write(str(chain.verify(_content(path), None).head))
    return fault


def read(path: Path) -> list[dict[str, Any]]:
    """Return the entries, the oldest first; a line cut short by a crash is skipped and told."""
    return [entry for _, entry in numbered(path)]


def numbered(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the entries with the numbers of their lines."""
    return _parsed(_content(path), path)


def last_move(path: Path) -> dict[str, Any] | None:
    """Return the latest entry that moved the alias `champion`."""
    moves = [entry for entry in read(path) if entry.get("action") in MOVES]
    return moves[-1] if moves else None


def moved_since(path: Path, asked: str | None) -> bool:
    """Tell whether the champion has moved after a time, ISO 8601 in UTC; None asks nothing."""
    last = last_move(path)
    if asked is None or last is None:
        return False
    try:
        return dt.datetime.fromisoformat(str(last["time"])) > dt.datetime.fromisoformat(asked)
    except (ValueError, TypeError) as error:
        raise RegistryError(
            f"{asked!r} is no time to compare the ledger with: {error}",
            hint="ISO 8601 with its offset, such as 2026-01-31T06:00:00+00:00",
        ) from error


def verified(path: Path, anchor: Anchor) -> list[dict[str, Any]]:
    """Return the entries of a ledger whose chain and anchor hold; otherwise raise."""
    content = _content(path)
    fault = chain.verify(content, anchor.read()).fault
    if fault is not None:
        raise RegistryError(
            f"{path}, {fault}: no approval can be read from it",
            hint="`zdm ledger --verify` says what to do",
        )
    return [entry for _, entry in _parsed(content, path)]


def predecessor(path: Path, version: str) -> str | None:
    """Return which version was champion before `version` became it, as far as the ledger knows."""
    for entry in reversed(read(path)):
        if entry.get("action") in MOVES and entry.get("to") == version != entry.get("from"):
            return str(entry["from"]) if entry.get("from") else None
    return None


def champions(path: Path) -> set[str]:
    """Return every version that the ledger knows to have been champion.

    Lines that moved nothing do not count: what people asked about may never have been champion.
    """
    moves = [entry for entry in read(path) if entry.get("action") in MOVES]
    held = [entry.get(key) for entry in moves for key in ("from", "to")]
    return {str(version) for version in held if version}


def followers(path: Path, version: str) -> set[str]:
    """Return which versions became champion since `version` last did."""
    later: set[str] = set()
    for entry in read(path):
        if entry.get("action") in MOVES:
            later = set() if entry.get("to") == version else later | {str(entry.get("to"))}
    return later


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _parsed(content: bytes, path: Path) -> list[tuple[int, dict[str, Any]]]:
    entries: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(content.rstrip(b"\n").split(b"\n"), 1):
        try:
            entries.append((number, dict(json.loads(line))))
        except (ValueError, TypeError):
            if line:
                logger.warning("%s, line %d is not JSON and is skipped", path, number)
    return entries


def _add(path: Path, line: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _circumstances(checks: Sequence[Check], who: str | None) -> dict[str, Any]:
    account = _account()
    return {
        "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        "checks": [_plain(item) for item in checks],
        "who": (who or "").strip() or account,
        "account": account,
    }


def _plain(item: Check) -> dict[str, Any]:
    """Return a check as JSON can hold it: a figure that is no number becomes text."""
    values = asdict(item).items()
    odd = {key: str(x) for key, x in values if isinstance(x, float) and not math.isfinite(x)}
    return asdict(item) | odd


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
