"""When an approval still counts, what people are shown, and who may answer."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from memory_anchor import MemoryAnchor

from zdm_ml.errors import RegistryError
from zdm_ml.registry import ledger
from zdm_ml.registry.answers import record_answer
from zdm_ml.registry.approval import (
    Answer,
    approval_check,
    check_digest,
    standing_approval,
)
from zdm_ml.registry.asking import request_text
from zdm_ml.registry.decision import Decision, check
from zdm_ml.registry.ledger import ledger_path
from zdm_ml.registry.policy import ApprovalPolicy, approval_policy
from zdm_ml.registry.promotion import never_judged
from zdm_ml.registry.versions import VersionInfo
from zdm_ml.settings import Settings, load_settings

DIGEST = "d" * 64
POLICY = ApprovalPolicy({"full": True, "quick": False}, ("anna", "ben"), 48.0)


def version(number: str, digest: str = DIGEST, name: str = "luna") -> VersionInfo:
    return VersionInfo(number, name, "run-1", "m1", "full", digest, "a" * 32 + ".dir", "c" * 40)


def line(action: str, to: str = "2", old: str | None = "1", **more: Any) -> dict[str, Any]:
    return {
        "action": action,
        "to": to,
        "from": old,
        "who": "anna",
        "package_digest": DIGEST,
        **more,
    }


@pytest.fixture
def settings(project: Path, tmp_path: Path) -> Settings:
    """A checkout whose committed params.yaml names anna and ben, and lets the file say more."""
    root = tmp_path / "project"
    root.mkdir()
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["promote"] |= {"approvers": ["anna", "ben"], "require_approval": {"full": True}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    params["promote"] |= {"approvers": ["eve"], "require_approval": {"full": False}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    return load_settings({"ZDM_HOME": str(tmp_path / "home")}, root)


def answer(settings: Settings, said: Answer, **more: Any) -> Decision:
    return record_answer(
        settings, "2", said, digest=DIGEST, champion="1", anchor=MemoryAnchor(), **more
    )


def test_an_approval_stands_for_its_own_version_alone() -> None:
    approval = standing_approval([line("approve")], "2")

    assert approval is not None
    assert (approval.who, approval.digest, approval.champion) == ("anna", DIGEST, "1")
    assert standing_approval([line("approve")], "1") is None
    assert standing_approval([], "2") is None


@given(
    st.lists(st.sampled_from(["ask", "approve", "reject", "promote", "keep", "supersede"])),
    st.lists(st.sampled_from(["promote", "approve", "rollback"])),
)
def test_an_approval_counts_until_the_next_line_that_is_no_request(
    actions: list[str], others: list[str]
) -> None:
    entries = [line(action) for action in actions] + [line(action, to="3") for action in others]
    decisive = [action for action in actions if action != "ask"]

    stands = standing_approval(entries, "2") is not None

    assert stands == (decisive[-1:] == ["approve"])


def test_another_package_than_the_approved_one_is_refused() -> None:
    approval = standing_approval([line("approve")], "2")

    assert approval_check(approval, version("2")).value == "anna"
    with pytest.raises(RegistryError, match=r"package eeeeeeeeeeee in the registry, not dddd"):
        approval_check(approval, version("2", digest="e" * 64))
    with pytest.raises(RegistryError, match="in the registry, not"):
        check_digest(version("2", digest=""), DIGEST)
    check_digest(version("2", digest="e" * 64), None)


def test_a_missing_approval_says_where_to_get_one() -> None:
    with pytest.raises(RegistryError, match="needs a person's approval") as caught:
        approval_check(None, version("2"))

    assert "DAG `promote`" in caught.value.hint
    assert "version 2" in caught.value.hint


def test_the_request_shows_what_is_decided() -> None:
    checks = (
        check("escapes", True, 0, 1),
        check("cost_per_image", True, 0.01234567, None),
        check("packet", True, "0123456789ab"),
    )
    decision = Decision("2", None, "promotable", "it passes", checks, digest=DIGEST, champion="1")

    text = request_text(
        decision,
        version("2", name="a|b"),
        version("1"),
        POLICY,
        "http://mlflow",
        packet="/#/p",
        kept="/#/m",
    )

    assert "**version 2, a|b** would replace **version 1, luna**." in text
    assert f"`{DIGEST}`" in text
    assert "(http://mlflow/#/models/casting-inspector/versions/2)" in text
    assert "[decision packet](http://mlflow/#/p)" in text
    assert "`packet/0123456789ab/packet.html` in the [model's artifacts](http://mlflow/#/m)" in text
    assert "| escapes | passed | 0 | 1 |" in text
    assert "| cost_per_image | passed | 0.01235 |  |" in text
    assert "if it holds and version 1 is still champion" in text
    assert "within 48 hours" in text
    assert "anna, ben" in text


def test_a_first_champion_is_announced_as_one() -> None:
    decision = Decision("2", None, "promotable", "it passes", digest=DIGEST)

    text = request_text(decision, version("2"), None, POLICY, "http://mlflow", packet="/#/p")

    assert "would be the first champion" in text
    assert "if it holds and there is still no champion" in text


def test_an_unlisted_profile_needs_an_approval() -> None:
    assert [POLICY.requires(name) for name in ("full", "quick", "smoke")] == [True, False, True]


def test_only_committed_approvers_and_demands_count(settings: Settings) -> None:
    policy = approval_policy(settings.root)

    assert policy.approvers == ("anna", "ben")
    assert policy.requires("full")
    with pytest.raises(RegistryError, match=r"eve may not approve: .* names anna, ben"):
        answer(settings, "approve", who="eve")
    assert not ledger_path(settings).exists()


def test_a_request_and_its_answer_are_lines_with_person_and_package(settings: Settings) -> None:
    waiting = answer(settings, "ask")
    approved = answer(settings, "approve", who="anna", reason=" looked at\nboth escapes ")

    asked, given_ = ledger.read(ledger_path(settings))
    assert (waiting.decision, approved.decision) == ("waiting", "approved")
    assert re.fullmatch(r"version 2 waits for anna or ben, until \S+ \S+ UTC", asked["reason"])
    assert (given_["action"], given_["who"], given_["package_digest"]) == (
        "approve",
        "anna",
        DIGEST,
    )
    assert (given_["from"], given_["to"]) == ("1", "2")
    assert given_["reason"] == "version 2 approved by anna: looked at\nboth escapes"
    assert not never_judged(settings, Decision("2", "challenger", "unchanged", ""))


def test_an_approval_that_nobody_was_asked_for_is_refused(settings: Settings) -> None:
    record_answer(settings, "2", "ask", digest=DIGEST, champion=None, anchor=MemoryAnchor())

    with pytest.raises(RegistryError, match="nobody was asked about version 2"):
        answer(settings, "approve", who="anna")

    assert [line["action"] for line in ledger.read(ledger_path(settings))] == ["ask"]


def test_a_rejection_names_the_person_with_the_id_that_was_named(settings: Settings) -> None:
    rejected = answer(settings, "reject", who="ben", name="Ben B.")

    assert rejected.reason == "version 2 rejected by Ben B. (ben), nothing moves"
    assert ledger.read(ledger_path(settings))[0]["who"] == "Ben B. (ben)"


def test_nobody_can_reject_and_never_approve(settings: Settings) -> None:
    expired = answer(settings, "reject", who="nobody")

    assert expired.decision == "rejected"
    assert expired.reason == "version 2 rejected, nothing moves: nobody answered in time"
    with pytest.raises(RegistryError, match="nobody may not approve"):
        answer(settings, "approve", who="nobody")
    with pytest.raises(RegistryError, match="nobody may not reject"):
        answer(settings, "reject")
