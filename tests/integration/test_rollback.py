"""Rollbacks, and what may not undo a promotion, on a real MLflow server process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from foundry import Foundry, Inference
from typer.testing import CliRunner

from zdm_ml.cli import app
from zdm_ml.errors import PackageError, RegistryError
from zdm_ml.registry import ledger
from zdm_ml.registry.connection import connect
from zdm_ml.registry.decision import Decision
from zdm_ml.registry.promotion import never_judged
from zdm_ml.registry.rollback import verify_live
from zdm_ml.registry.versions import ROLLED_BACK
from zdm_ml.settings import REGISTERED_MODEL

pytestmark = pytest.mark.integration


def _moves(entries: list[dict[str, Any]]) -> list[tuple[str, str | None, str]]:
    return [(entry["action"], entry["from"], entry["to"]) for entry in entries]


def _age(decision: Decision) -> tuple[str, Any]:
    return next((c.state, c.value) for c in decision.checks if c.name == "not_older")


def test_rollback_returns_to_previous_and_the_server_follows(foundry: Foundry) -> None:
    foundry.champions(2)
    inference = Inference(foundry.settings.inference_port, lambda: foundry.alias("champion"))

    try:
        back = foundry.rollback(timeout=20)
        repeated = foundry.rollback(timeout=20)
        live = verify_live(foundry.settings, timeout=20)
    finally:
        inference.close()

    assert (back.decision, back.version, back.checks[-1].state) == ("rolled_back", "1", "passed")
    assert (foundry.alias("champion"), foundry.alias("previous")) == ("1", "2")
    assert (repeated.decision, repeated.version) == ("unchanged", "1")
    assert live.decision == "live"
    assert foundry.promote("2").decision == "kept"
    assert foundry.promote("2", again=True).decision == "promoted"


def test_the_ledger_keeps_who_rolled_back_why_and_what_was_proved(foundry: Foundry) -> None:
    foundry.champions(2)

    foundry.rollback(reason="escapes in shift 2", who="shift lead")

    entry = foundry.decisions()[-1]
    tags = connect(foundry.server.uri).get_model_version(REGISTERED_MODEL, "1").tags
    assert _moves([entry]) == [("rollback", "2", "1")]
    assert (entry["reason"], entry["who"]) == ("escapes in shift 2", "shift lead")
    assert [item["name"] for item in entry["checks"]] == ["digests", "golden"]
    assert entry["package_digest"] == tags["package_digest"]


def test_rollback_says_so_when_no_server_runs(foundry: Foundry) -> None:
    foundry.champions(2)

    back = foundry.rollback()

    assert (back.decision, back.checks[-1].state) == ("rolled_back", "broken")
    assert "no inference server" in back.reason


def test_verify_live_fails_where_another_version_is_served(
    foundry: Foundry, monkeypatch: pytest.MonkeyPatch
) -> None:
    foundry.champions(2)
    port = foundry.settings.inference_port
    monkeypatch.setenv("MLFLOW_TRACKING_URI", foundry.server.uri)
    monkeypatch.setenv("ZDM_INFERENCE_PORT", str(port))
    inference = Inference(port, lambda: "1")

    try:
        found = verify_live(foundry.settings, timeout=0)
        command = CliRunner().invoke(app, ["verify-live", "--timeout", "0"])
    finally:
        inference.close()

    assert (found.decision, command.exit_code) == ("not_live", 1)
    assert "answers with 1 instead of version 2" in found.reason


def test_verify_live_fails_where_nobody_answers_and_passes_without_a_champion(
    foundry: Foundry,
) -> None:
    nothing = verify_live(foundry.settings, timeout=0)
    foundry.champions(1)
    silent = verify_live(foundry.settings, timeout=0)

    assert (nothing.decision, silent.decision) == ("no_champion", "not_live")
    assert "no inference server" in silent.reason


def test_rollback_survives_a_crash_between_the_alias_moves(foundry: Foundry) -> None:
    foundry.champions(2)
    connect(foundry.server.uri).set_registered_model_alias(REGISTERED_MODEL, "previous", "2")

    back = foundry.rollback()

    assert back.version == "1"
    assert (foundry.alias("champion"), foundry.alias("previous")) == ("1", "2")


def test_a_rollback_that_is_cleared_does_not_touch_a_newer_champion(foundry: Foundry) -> None:
    foundry.champions(2)
    asked = "2026-01-01T00:00:00+00:00"

    stays = foundry.rollback(asked=asked)
    foundry.rollback(asked=asked)

    assert stays.decision == "unchanged"
    assert "it became champion after this rollback was asked for" in stays.reason
    assert foundry.alias("champion") == "2"
    assert _moves(foundry.decisions()[-2:]) == [("promote", "1", "2"), ("keep", "2", "2")]


def test_a_rollback_cut_short_before_the_alias_moved_leaves_no_mark_on_a_later_previous(
    foundry: Foundry,
) -> None:
    foundry.champions(2)
    client = connect(foundry.server.uri)
    client.set_model_version_tag(REGISTERED_MODEL, "2", ROLLED_BACK, "2026-01-01T00:00:00")
    foundry.register(foundry.run(seed=7))

    promoted = foundry.promote("3")
    back = foundry.rollback()

    assert (promoted.decision, back.decision, back.version) == ("promoted", "rolled_back", "2")
    moves = [line["action"] for line in foundry.decisions()]
    assert moves[-2:] == ["promote", "rollback"]


def test_a_promotion_that_left_no_line_is_recorded_before_its_rollback(foundry: Foundry) -> None:
    foundry.champions(1)
    foundry.register(foundry.run(seed=7))
    client = connect(foundry.server.uri)
    client.set_registered_model_alias(REGISTERED_MODEL, "previous", "1")
    client.set_registered_model_alias(REGISTERED_MODEL, "champion", "2")

    foundry.rollback()

    moves = [(line["action"], line["from"], line["to"]) for line in foundry.decisions()]
    assert moves[-2:] == [("promote", "1", "2"), ("rollback", "2", "1")]


def test_a_rollback_goes_to_any_version_that_was_champion(foundry: Foundry) -> None:
    foundry.champions(3)

    back = foundry.rollback("1")
    passed_over = foundry.promote("2")
    repeated = foundry.rollback("1")
    forth = foundry.rollback("3", reason="it was the camera")

    assert (back.decision, back.version) == ("rolled_back", "1")
    assert passed_over.decision == "kept" and "rolled_back" in passed_over.reason
    assert (repeated.decision, repeated.version) == ("unchanged", "1")
    assert "is the champion already" in repeated.reason
    assert (forth.decision, foundry.alias("champion")) == ("rolled_back", "3")
    moves = [move for move in _moves(foundry.decisions()) if move[0] == "rollback"]
    assert moves == [("rollback", "3", "1"), ("rollback", "1", "3")]


def test_a_version_that_never_was_champion_is_sent_to_the_gate(foundry: Foundry) -> None:
    foundry.champions(1)
    foundry.register(foundry.run())

    with pytest.raises(RegistryError, match="version 2.*never was champion") as refused:
        foundry.rollback("2")

    assert "`zdm promote 2` puts it before the gate" in refused.value.hint
    assert foundry.alias("champion") == "1"
    assert _moves(foundry.decisions()) == [("promote", None, "1")]


def test_an_unknown_version_is_refused(foundry: Foundry) -> None:
    foundry.champions(1)

    with pytest.raises(RegistryError, match="has no version '7'"):
        foundry.rollback("7")


def test_nothing_is_rolled_back_to_an_altered_package(foundry: Foundry) -> None:
    foundry.champions(1)
    weights = (foundry.server.folder / "artifacts").rglob("package/weights.safetensors")
    newest = max(weights, key=lambda path: path.stat().st_mtime)
    foundry.champions(1)
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)

    with pytest.raises(PackageError, match="sha256"):
        foundry.rollback("1")

    assert foundry.alias("champion") == "2"


def test_a_demo_is_never_rolled_back_to_from_a_full_model(foundry: Foundry) -> None:
    foundry.champions(1, profile="quick")
    foundry.champions(1, profile="full")

    for to in (None, "1"):
        with pytest.raises(RegistryError, match="a demo never replaces a full model"):
            foundry.rollback(to)

    assert foundry.alias("champion") == "2"


@pytest.mark.parametrize("to", [None, "1"])
def test_a_rollback_repeated_after_a_crash_writes_the_line_that_was_missing(
    foundry: Foundry, to: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    foundry.champions(2)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(ledger, "_add", _disk_full)
        foundry.rollback(to)
    repeated = foundry.rollback(to, reason="again")

    assert (repeated.decision, foundry.alias("champion")) == ("unchanged", "1")
    last = foundry.decisions()[-1]
    assert _moves([last]) == [("rollback", "2", "1")]
    assert last["reason"] == "found as champion; again"


def _disk_full(path: Path, line: bytes) -> None:
    raise OSError("disk full")


def test_an_older_version_replaces_no_newer_champion_unless_asked_again(foundry: Foundry) -> None:
    foundry.champions(2)

    kept = foundry.promote("1")
    cleared = foundry.promote("1", again=True, asked="2026-01-01T00:00:00+00:00")
    asked = foundry.promote("1", again=True)

    assert (kept.decision, _age(kept)[0]) == ("kept", "failed")
    assert (cleared.decision, _age(cleared)[0]) == ("kept", "failed")
    assert "`zdm promote 1 --again`" in kept.reason
    assert (asked.decision, foundry.alias("champion")) == ("promoted", "1")


def test_a_cleared_retraining_announces_nothing_that_was_judged(foundry: Foundry) -> None:
    old = foundry.champions(1)
    foundry.champions(1)

    cleared = foundry.register(old)

    assert (cleared.decision, cleared.version) == ("unchanged", "1")
    assert not never_judged(foundry.settings, cleared)


def test_a_cleared_retraining_is_as_old_as_its_first_start_whatever_its_number(
    foundry: Foundry,
) -> None:
    """On a GPU the same training may end in other bytes, and so in a version with a new number."""
    old = foundry.run(seed=5)
    foundry.champions(1)
    other = foundry.run(seed=6)
    registered = foundry.register(replace(other, record=old.record))

    kept = foundry.promote(str(registered.version))

    assert (registered.decision, registered.version) == ("registered", "2")
    assert kept.decision == "kept"
    assert _age(kept)[0] == "failed"
    assert foundry.alias("champion") == "1"
