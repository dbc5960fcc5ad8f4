"""The ledger of decisions about the champion."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
from pathlib import Path

import pytest
from memory_anchor import MemoryAnchor

from zdm_ml.errors import RegistryError
from zdm_ml.registry import ledger
from zdm_ml.registry.chain import Report, verify
from zdm_ml.registry.decision import Check, check


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def anchor() -> MemoryAnchor:
    return MemoryAnchor()


def _move(path: Path, anchor: MemoryAnchor, action: str, old: str | None, new: str) -> None:
    ledger.append(
        path,
        anchor,
        action=action,
        old=old,
        new=new,
        digest=f"digest-{new}",
        reason="r",
        checks=[check("a", True, 1)],
    )


def _checked(path: Path, anchor: MemoryAnchor) -> Report:
    return verify(path.read_bytes(), anchor.text)


def test_entries_come_back_in_order_with_their_checks(path: Path, anchor: MemoryAnchor) -> None:
    _move(path, anchor, "promote", None, "1")
    _move(path, anchor, "keep", "1", "2")

    entries = ledger.read(path)

    assert [(entry["action"], entry["to"]) for entry in entries] == [
        ("promote", "1"),
        ("keep", "2"),
    ]
    assert entries[0]["checks"] == [{"name": "a", "state": "passed", "value": 1, "limit": None}]
    assert entries[0]["package_digest"] == "digest-1"
    assert {"time", "who", "account", "reason", "from"} <= set(entries[0])


def test_each_line_carries_its_number_and_the_hash_of_the_line_before(
    path: Path, anchor: MemoryAnchor
) -> None:
    for number in range(3):
        _move(path, anchor, "promote", None, str(number))

    entries = ledger.read(path)

    assert [entry["n"] for entry in entries] == [1, 2, 3]
    assert entries[0]["prev"] == hashlib.sha256(b"").hexdigest()
    assert [entry["prev"] for entry in entries[1:]] == [entry["hash"] for entry in entries[:2]]
    assert anchor.text == f"3 {entries[2]['hash']}"


def test_who_asks_stands_beside_the_account(path: Path, anchor: MemoryAnchor) -> None:
    for who in ("shift lead", " ", None):
        ledger.append(
            path, anchor, action="keep", old=None, new="1", digest=None, reason="r", who=who
        )

    first, *others = ledger.read(path)

    assert first["who"] == "shift lead"
    assert [entry["who"] for entry in others] == [first["account"]] * 2


def test_a_figure_that_is_no_number_is_kept_as_text(path: Path, anchor: MemoryAnchor) -> None:
    figure = Check("cost", "broken", float("nan"), float("inf"))

    ledger.append(
        path, anchor, action="keep", old=None, new="1", digest=None, reason="r", checks=[figure]
    )

    (kept,) = ledger.read(path)[0]["checks"]
    assert (kept["value"], kept["limit"]) == ("nan", "inf")


def test_a_line_cut_short_neither_hides_nor_swallows_another(
    path: Path, anchor: MemoryAnchor
) -> None:
    _move(path, anchor, "promote", None, "1")
    with path.open("a") as file:
        file.write('{"account":"foundry","act')

    _move(path, anchor, "promote", "1", "2")

    report = _checked(path, anchor)
    assert [entry["to"] for entry in ledger.read(path)] == ["1", "2"]
    assert (report.fault, report.torn, report.behind) == (None, (2,), 0)


def test_a_crash_before_the_anchor_is_healed_by_the_next_line(
    path: Path, anchor: MemoryAnchor
) -> None:
    _move(path, anchor, "promote", None, "1")
    anchor.broken = True
    with pytest.raises(ConnectionError):
        _move(path, anchor, "promote", "1", "2")
    anchor.broken = False
    left = _checked(path, anchor)

    _move(path, anchor, "promote", "2", "3")

    healed = _checked(path, anchor)
    assert (left.fault, left.behind) == (None, 1)
    assert (healed.fault, healed.lines, healed.behind) == (None, 3, 0)


def test_a_line_that_a_crash_left_out_is_completed_once(path: Path, anchor: MemoryAnchor) -> None:
    _move(path, anchor, "promote", None, "1")

    for _ in range(2):
        ledger.complete(path, anchor, "2", "digest-2")

    entries = ledger.read(path)
    assert [(entry["from"], entry["to"]) for entry in entries] == [(None, "1"), ("1", "2")]
    assert "found as champion" in entries[1]["reason"]


def test_completing_a_complete_ledger_anchors_it(path: Path, anchor: MemoryAnchor) -> None:
    _move(path, anchor, "promote", None, "1")
    whole, anchor.text = anchor.text, None

    ledger.complete(path, anchor, "1", "digest-1")

    assert anchor.text == whole
    assert len(ledger.read(path)) == 1


def test_old_lines_are_adopted_as_they_are_and_watched_from_then_on(
    path: Path, anchor: MemoryAnchor
) -> None:
    old = '{"action": "promote", "from": null, "to": "1"}\n{"action": "kee\n{"action": "keep", '
    path.write_text(old)

    _move(path, anchor, "promote", "1", "2")

    content = path.read_bytes()
    changed = content.replace(b'"to": "1"', b'"to": "9"')
    report = _checked(path, anchor)
    assert content.startswith(old.encode())
    assert (report.fault, report.begins, report.lines) == (None, 4, 4)
    assert ledger.last_move(path) == json.loads(content.splitlines()[3])
    assert ledger.champions(path) == {"1", "2"}
    fault = verify(changed, anchor.text).fault
    assert fault is not None
    assert "lines 1 to 3 are not what line 4 was written after" in str(fault)


def test_old_lines_alone_have_no_chain_and_no_fault(path: Path) -> None:
    path.write_text('{"action": "promote", "from": null, "to": "1"}\n')

    report = verify(path.read_bytes(), None)

    assert (report.fault, report.lines, report.begins) == (None, 1, 2)


def test_a_broken_ledger_takes_lines_but_keeps_its_anchor(
    path: Path, anchor: MemoryAnchor, caplog: pytest.LogCaptureFixture
) -> None:
    for number in ("1", "2", "3"):
        _move(path, anchor, "promote", None, number)
    named = anchor.text
    path.write_bytes(path.read_bytes().replace(b'"to":"2"', b'"to":"7"'))

    with caplog.at_level(logging.ERROR, "zdm_ml"):
        _move(path, anchor, "promote", "3", "4")

    report = _checked(path, anchor)
    assert "line 2" in caplog.text
    assert len(ledger.read(path)) == 4
    assert anchor.text == named
    assert report.fault is not None and report.fault.line == 2


@pytest.mark.parametrize("lost", ["middle", "end", "all", "last line spoilt"])
def test_a_break_is_accepted_on_the_record(path: Path, anchor: MemoryAnchor, lost: str) -> None:
    for number in ("1", "2", "3"):
        _move(path, anchor, "promote", None, number)
    lines = path.read_bytes().splitlines(keepends=True)
    left = {
        "middle": lines[:1] + lines[2:],
        "end": lines[:2],
        "all": [],
        "last line spoilt": [*lines[:2], b"spoilt\n"],
    }
    path.write_bytes(b"".join(left[lost]))

    fault = ledger.accept(path, anchor, reason="disk died", who="auditor")

    _move(path, anchor, "promote", "3", "4")
    accepted, last = ledger.read(path)[-2:]
    report = _checked(path, anchor)
    assert (report.fault, report.behind) == (None, 0)
    assert report.begins == report.lines - 1
    assert (accepted["action"], accepted["who"], last["to"]) == ("accept", "auditor", "4")
    assert accepted["checks"][0]["value"] == str(fault)


def test_an_intact_ledger_needs_no_accepting(path: Path, anchor: MemoryAnchor) -> None:
    _move(path, anchor, "promote", None, "1")

    with pytest.raises(RegistryError, match="intact"):
        ledger.accept(path, anchor, reason="r")


def test_kept_decisions_are_no_moves(path: Path, anchor: MemoryAnchor) -> None:
    _move(path, anchor, "promote", None, "1")
    _move(path, anchor, "promote", "1", "2")
    _move(path, anchor, "keep", "2", "3")

    last = ledger.last_move(path)

    assert last is not None and last["to"] == "2"
    assert ledger.predecessor(path, "2") == "1"
    assert ledger.predecessor(path, "1") is None
    assert ledger.champions(path) == {"1", "2"}


def test_what_people_asked_about_makes_nobody_a_champion(path: Path, anchor: MemoryAnchor) -> None:
    _move(path, anchor, "promote", None, "1")
    _move(path, anchor, "ask", "7", "8")

    assert ledger.champions(path) == {"1"}


def test_followers_are_who_became_champion_since(path: Path, anchor: MemoryAnchor) -> None:
    for old, new in ((None, "1"), ("1", "2"), ("2", "3")):
        _move(path, anchor, "promote", old, new)
    _move(path, anchor, "keep", "3", "4")

    assert ledger.followers(path, "1") == {"2", "3"}
    assert ledger.followers(path, "3") == set()
    _move(path, anchor, "rollback", "3", "1")
    assert ledger.followers(path, "1") == set()
    assert ledger.followers(path, "2") == {"3", "1"}


def test_a_missing_ledger_is_empty(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "none.jsonl") == []


def test_a_move_counts_as_newer_than_what_was_asked_before_it(
    path: Path, anchor: MemoryAnchor
) -> None:
    assert not ledger.moved_since(path, "2026-01-01T00:00:00+00:00")

    _move(path, anchor, "promote", None, "1")

    assert ledger.moved_since(path, "2026-01-01T00:00:00+00:00")
    assert not ledger.moved_since(path, "2999-01-01T00:00:00+00:00")
    assert not ledger.moved_since(path, None)
    moved = dt.datetime.fromisoformat(str(ledger.read(path)[-1]["time"]))
    assert moved.isoformat(timespec="milliseconds") == ledger.read(path)[-1]["time"]
    assert not ledger.moved_since(path, moved.isoformat())
    assert ledger.moved_since(path, (moved - dt.timedelta(milliseconds=1)).isoformat())
    with pytest.raises(RegistryError, match="'tomorrow' is no time"):
        ledger.moved_since(path, "tomorrow")


def test_no_approval_is_read_from_a_ledger_that_somebody_wrote_into(
    path: Path, anchor: MemoryAnchor
) -> None:
    _move(path, anchor, "keep", None, "1")
    with path.open("a") as file:
        file.write(json.dumps({"action": "approve", "to": "1", "from": None, "who": "anna"}) + "\n")

    with pytest.raises(RegistryError, match="no approval can be read from it"):
        ledger.verified(path, anchor)
