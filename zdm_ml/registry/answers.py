"""A person's answer to a request for approval, as a line of the ledger."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from zdm_ml.errors import RegistryError
from zdm_ml.registry import ledger
from zdm_ml.registry.approval import APPROVE, ASK, NOBODY, REJECT, Answer
from zdm_ml.registry.decision import Decision
from zdm_ml.registry.ledger import Anchor, ledger_path
from zdm_ml.registry.policy import ApprovalPolicy, approval_policy
from zdm_ml.registry.promotion import promotion_lock
from zdm_ml.settings import Settings

DECISIONS = {ASK: "waiting", APPROVE: "approved", REJECT: "rejected"}


def record_answer(
    settings: Settings,
    version: str,
    answer: Answer,
    *,
    digest: str,
    champion: str | None,
    anchor: Anchor,
    who: str | None = None,
    name: str = "",
    reason: str = "",
) -> Decision:
    """Write a line: that a request was made, or who answered it and how.

    `who` is the user id that must be among the approvers, None for the request itself; `nobody`
    can only reject. `champion` is the version that the approvers saw in the comparison. Raises
    `RegistryError` for an approval that no request asked for.
    """
    policy = approval_policy(settings.root)
    if answer != ASK:
        _check_person(who, answer, policy)
    person = f"{name} ({who})" if who and name and name != who else who
    said = _sentence(version, answer, person, reason.strip(), policy)
    with promotion_lock(settings):
        if answer == APPROVE:
            _check_asked(ledger.read(ledger_path(settings)), version, digest, champion)
        ledger.append(
            ledger_path(settings),
            anchor,
            action=answer,
            old=champion,
            new=version,
            reason=said,
            who=person,
            digest=digest,
        )
    return Decision(version, None, DECISIONS[answer], said, digest=digest, champion=champion)


def _check_person(who: str | None, answer: Answer, policy: ApprovalPolicy) -> None:
    if who in policy.approvers or (who == NOBODY and answer == REJECT):
        return
    named = ", ".join(policy.approvers)
    raise RegistryError(
        f"{who or NOBODY} may not {answer}: promote.approvers names {named}",
        hint="let one of them answer, or commit another list in params.yaml",
    )


def _check_asked(
    entries: Iterable[Mapping[str, Any]], version: str, digest: str, champion: str | None
) -> None:
    """Raise unless somebody was asked about this version, this package and this champion."""
    asked = [
        (line.get("to"), line.get("package_digest"), line.get("from"))
        for line in entries
        if line.get("action") == ASK
    ]
    if (version, digest, champion) not in asked:
        raise RegistryError(
            f"nobody was asked about version {version} as it is approved here",
            hint=f"trigger DAG `promote` in Airflow with version {version}: it asks",
        )


def _sentence(
    version: str,
    answer: Answer,
    person: str | None,
    text: str,
    policy: ApprovalPolicy,
) -> str:
    because = f": {text}" if text else ""
    if answer == ASK:
        until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=policy.hours)
        names = " or ".join(policy.approvers)
        return f"version {version} waits for {names}, until {until:%Y-%m-%d %H:%M} UTC"
    if answer == APPROVE:
        return f"version {version} approved by {person}{because}"
    if person == NOBODY:
        return f"version {version} rejected, nothing moves: nobody answered in time"
    return f"version {version} rejected by {person}, nothing moves{because}"
