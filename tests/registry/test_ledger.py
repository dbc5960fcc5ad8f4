"""The ledger of decisions about the champion."""

from __future__ import annotations

from pathlib import Path

from zdm_ml.registry import ledger
from zdm_ml.registry.decision import check


def _move(path: Path, action: str, old: str | None, new: str) -> None:
    ledger.append(path, action=action, old=old, new=new, reason="r", checks=[check("a", True, 1)])


def test_entries_come_back_in_order_with_their_checks(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    _move(path, "promote", None, "1")
    _move(path, "keep", "1", "2")

    entries = ledger.read(path)

    assert [(entry["action"], entry["to"]) for entry in entries] == [
        ("promote", "1"),
        ("keep", "2"),
    ]
    assert entries[0]["checks"] == [{"name": "a", "state": "passed", "value": 1, "limit": None}]
    assert {"time", "who", "reason", "from"} <= set(entries[0])


def test_a_line_cut_short_neither_hides_nor_swallows_another(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    _move(path, "promote", None, "1")
    with path.open("a") as file:
        file.write('{"action": "prom')

    _move(path, "promote", "1", "2")

    assert [entry["to"] for entry in ledger.read(path)] == ["1", "2"]


def test_kept_decisions_are_no_moves(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    _move(path, "promote", None, "1")
    _move(path, "promote", "1", "2")
    _move(path, "keep", "2", "3")

    last = ledger.last_move(path)

    assert last is not None and last["to"] == "2"
    assert ledger.predecessor(path, "2") == "1"
    assert ledger.predecessor(path, "1") is None


def test_a_missing_ledger_is_empty(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "none.jsonl") == []
