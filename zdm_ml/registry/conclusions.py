"""How a gate, a promotion and an approval can end, and the sentences that say so."""

from __future__ import annotations

from collections.abc import Sequence

from zdm_ml.registry.approval import Approval
from zdm_ml.registry.decision import Check, Decision
from zdm_ml.registry.gate import explain
from zdm_ml.registry.versions import CHAMPION, VersionInfo

SHOWN = ("escapes", "cost", "balanced_accuracy")


def unchanged(champion: VersionInfo) -> Decision:
    """The version is champion already."""
    reason = f"{champion.title} is the champion already"
    return _decision(champion, champion, "unchanged", reason, alias=CHAMPION)


def promotable(
    challenger: VersionInfo, champion: VersionInfo | None, checks: Sequence[Check]
) -> Decision:
    """The gate holds; nothing has moved."""
    reason = f"{challenger.title} passes: {_figures(checks)}"
    return _decision(challenger, champion, "promotable", reason, checks)


def promoted(
    challenger: VersionInfo, champion: VersionInfo | None, checks: Sequence[Check]
) -> Decision:
    """The alias has moved."""
    replaced = f"replaces {champion.title}" if champion else "is the first champion"
    by = next((f"; approved by {item.value}" for item in checks if item.name == "approval"), "")
    reason = f"{challenger.title} {replaced}: {_figures(checks)}{by}"
    return _decision(challenger, champion, "promoted", reason, checks, alias=CHAMPION)


def kept(
    challenger: VersionInfo, champion: VersionInfo | None, checks: Sequence[Check]
) -> Decision:
    """The gate says no."""
    reason = f"{_stays(champion)}; {challenger.title} not promoted: {explain(checks)}"
    return _decision(challenger, champion, "kept", reason, checks)


def superseded(
    challenger: VersionInfo,
    champion: VersionInfo | None,
    approval: Approval,
    checks: Sequence[Check],
) -> Decision:
    """The approval came too late: another version is champion than the one compared with."""
    then = f"version {approval.champion} was" if approval.champion else "there was no"
    reason = (
        f"{_stays(champion)}; the approval of {challenger.title} by {approval.who} is superseded: "
        f"it was asked for when {then} champion. Trigger DAG `promote` with version "
        f"{challenger.version} to ask again"
    )
    return _decision(challenger, champion, "superseded", reason, checks)


def _stays(champion: VersionInfo | None) -> str:
    return f"champion kept ({champion.title})" if champion else "no champion yet"


def _decision(
    version: VersionInfo,
    champion: VersionInfo | None,
    decision: str,
    reason: str,
    checks: Sequence[Check] = (),
    *,
    alias: str | None = None,
) -> Decision:
    return Decision(
        version.version,
        alias,
        decision,
        reason,
        tuple(checks),
        version.run_id,
        digest=version.package_digest,
        champion=champion.version if champion else None,
    )


def _figures(checks: Sequence[Check]) -> str:
    named = {item.name: item for item in checks}
    shown = [named[name] for name in SHOWN if name in named]
    return ", ".join(
        f"{item.name} {item.value:.4g} (limit {item.limit:.4g})"
        for item in shown
        if isinstance(item.value, int | float) and isinstance(item.limit, int | float)
    )
