"""Approvals as the ledger holds them: of one package, against one champion, used up once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zdm_ml.errors import RegistryError
from zdm_ml.registry.decision import Check
from zdm_ml.registry.versions import VersionInfo

Answer = Literal["ask", "approve", "reject"]
ASK: Answer = "ask"
APPROVE: Answer = "approve"
REJECT: Answer = "reject"
NOBODY = "nobody"
"""Who rejects when the time to answer has passed."""


@dataclass(frozen=True)
class Approval:
    """`champion` is the version that the approved one was compared with, if there was any."""

    who: str
    digest: str
    champion: str | None


def standing_approval(entries: Iterable[Mapping[str, Any]], version: str) -> Approval | None:
    """Return the approval of a version, unless a later line has used it up or withdrawn it.

    Asking again withdraws nothing: an older request may still be on its way.
    """
    lines = [line for line in entries if line["to"] == version and line["action"] != ASK]
    if not lines or lines[-1]["action"] != APPROVE:
        return None
    last = lines[-1]
    return Approval(str(last["who"]), last.get("package_digest") or "", last["from"])


def check_digest(challenger: VersionInfo, digest: str | None) -> None:
    """Raise `RegistryError` if the registry's version is not the package that was looked at."""
    if digest is not None and challenger.package_digest != digest:
        raise RegistryError(
            f"{challenger.title} is package {challenger.package_digest[:12] or 'unknown'} in the "
            f"registry, not {digest[:12]} as it was when it was checked",
            hint="find out who changed it; `zdm promote` without --digest, or DAG `promote` by "
            "hand, takes what is there",
        )


def approval_check(approval: Approval | None, challenger: VersionInfo) -> Check:
    """Return who approved exactly this package; without that, raise `RegistryError`."""
    if approval is None:
        raise RegistryError(
            f"{challenger.title} passes, but needs a person's approval, and the ledger holds none "
            "that still counts",
            hint=f"trigger DAG `promote` in Airflow with version {challenger.version}: it asks",
        )
    check_digest(challenger, approval.digest)
    return Check("approval", "passed", approval.who)
