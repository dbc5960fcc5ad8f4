"""`zdm gate` and `zdm promote`: check a version, then move the alias `champion`, last."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from zdm_ml.errors import RegistryError
from zdm_ml.registry import conclusions, ledger
from zdm_ml.registry.anchor import RegistryAnchor
from zdm_ml.registry.approval import approval_check, check_digest, standing_approval
from zdm_ml.registry.connection import connect, registry_errors
from zdm_ml.registry.decision import Check, Decision, unmet
from zdm_ml.registry.evidence import Contest, ImagesFor, examine
from zdm_ml.registry.filing import background_of, file_packet
from zdm_ml.registry.ledger import ledger_path
from zdm_ml.registry.packet import FOLDER, write_packet
from zdm_ml.registry.policy import approval_policy, committed_params, policy_for
from zdm_ml.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    ROLLED_BACK,
    VersionInfo,
    by_alias,
    by_number,
    resolve,
)
from zdm_ml.settings import REGISTERED_MODEL, Settings, make_home

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

ACTIONS = {"promoted": "promote", "kept": "keep", "superseded": "supersede"}
"""What the ledger calls a decision."""
ATTEMPTS = 3
"""How often the gate is repeated when another promotion moved the champion meanwhile."""


def gate(
    settings: Settings,
    wanted: str,
    *,
    images_for: ImagesFor,
    again: bool = False,
    asked: str | None = None,
) -> Decision:
    """Return what the gate says of a version, without moving anything; see `promote`."""
    client = connect(settings.mlflow_uri)
    challenger, champion = _opponents(settings, client, wanted)
    if champion is not None and champion.version == challenger.version:
        return conclusions.unchanged(champion)
    meant = again and _still_meant(settings, asked)
    checks = _examine(settings, client, challenger, champion, images_for, again=meant)
    said = conclusions.kept if unmet(checks) else conclusions.promotable
    return said(challenger, champion, checks)


def promote(
    settings: Settings,
    wanted: str,
    *,
    images_for: ImagesFor,
    again: bool = False,
    asked: str | None = None,
    digest: str | None = None,
    approved: bool = False,
) -> Decision:
    """Make a version champion if the gate lets it; otherwise the champion is kept.

    `again` lets a version in that was rolled back, or is older than the champion; with `asked`, a
    time in ISO 8601, only while the champion has not moved since then. Only the package
    `digest` is promoted, where one is given, and with `approved`, or where params.yaml demands it,
    only what the ledger holds an approval of. The alias moves under a lock, and only if the
    champion is still the one that the gate compared with.
    """
    client = connect(settings.mlflow_uri)
    for _ in range(ATTEMPTS):
        challenger, champion = _opponents(settings, client, wanted)
        check_digest(challenger, digest)
        if champion is not None and champion.version == challenger.version:
            return _confirm(settings, client, champion)
        meant = again and _still_meant(settings, asked)
        checks = _examine(settings, client, challenger, champion, images_for, again=meant)
        needed = approved or approval_policy(settings.root).requires(challenger.profile)
        decision = _conclude(settings, client, challenger, champion, checks, approval_needed=needed)
        if decision is not None:
            return decision
    raise RegistryError(
        f"the champion changed {ATTEMPTS} times while version {wanted} was being checked",
        hint="see who else promotes, then run `zdm promote` again",
    )


@contextmanager
def promotion_lock(settings: Settings) -> Iterator[None]:
    """Hold the lock under which aliases move and the ledger grows."""
    path = make_home(settings.home) / "locks" / "promotion.lock"
    path.parent.mkdir(exist_ok=True)
    with FileLock(path), registry_errors(settings.mlflow_uri, "moving the alias champion"):
        yield


def never_judged(settings: Settings, decision: Decision) -> bool:
    """Tell whether a challenger waits for the gate: it was announced, and the ledger is silent."""
    if decision.alias != CHALLENGER:
        return False
    return all(line["to"] != decision.version for line in ledger.read(ledger_path(settings)))


def move_champion(client: MlflowClient, old: VersionInfo | None, new: VersionInfo) -> None:
    """Point `previous` at the old champion, then `champion` at the new one: last, and atomic."""
    if old is not None and old.version != new.version:
        client.set_registered_model_alias(REGISTERED_MODEL, PREVIOUS, old.version)
    client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, new.version)


def _still_meant(settings: Settings, asked: str | None) -> bool:
    """Tell whether `again` still counts: not in an old run that is cleared after a promotion."""
    if ledger.moved_since(ledger_path(settings), asked):
        logger.warning("the champion moved since this was asked for: --again no longer counts")
        return False
    return True


def _opponents(
    settings: Settings, client: MlflowClient, wanted: str
) -> tuple[VersionInfo, VersionInfo | None]:
    with registry_errors(settings.mlflow_uri, "asking for the versions"):
        return resolve(client, wanted), by_alias(client, CHAMPION)


def _examine(
    settings: Settings,
    client: MlflowClient,
    challenger: VersionInfo,
    champion: VersionInfo | None,
    images_for: ImagesFor,
    *,
    again: bool = False,
) -> list[Check]:
    home = make_home(settings.home)
    with tempfile.TemporaryDirectory(dir=home, prefix=".gate-") as temporary:
        policy = policy_for(settings.root, challenger.profile)
        level = committed_params(settings.root).select.test_uses
        contest = Contest(
            uri=settings.mlflow_uri,
            challenger=challenger,
            champion=champion,
            folder=Path(temporary),
            images_for=images_for,
            policy=policy,
            again=again,
        )
        examination = examine(contest)
        packet = Path(temporary) / FOLDER
        background = background_of(client, challenger, level)
        write_packet(packet, challenger, champion, examination, policy, background)
        filed = file_packet(client, challenger, packet)
    return [*examination.checks, filed]


def _conclude(
    settings: Settings,
    client: MlflowClient,
    challenger: VersionInfo,
    champion: VersionInfo | None,
    checks: Sequence[Check],
    *,
    approval_needed: bool,
) -> Decision | None:
    """Move the alias or keep it, and write it down; None when the champion has changed."""
    path = ledger_path(settings)
    with promotion_lock(settings):
        holder = by_alias(client, CHAMPION)
        if (holder and holder.version) != (champion and champion.version):
            return None
        anchor = RegistryAnchor(client)
        if holder is not None:  # a crash may have left out how it became champion
            ledger.complete(path, anchor, holder.version, holder.package_digest)
        entries = ledger.verified(path, anchor) if approval_needed else None
        decision = _decide(entries, challenger, champion, checks)
        if decision.decision == "promoted":
            check_digest(by_number(client, challenger.version), challenger.package_digest)
            if holder is not None and holder.rolled_back:
                # A rollback that was cut short before the alias moved left its mark.
                client.delete_model_version_tag(REGISTERED_MODEL, holder.version, ROLLED_BACK)
            move_champion(client, champion, challenger)
            client.delete_model_version_tag(REGISTERED_MODEL, challenger.version, ROLLED_BACK)
        ledger.append(
            path,
            anchor,
            action=ACTIONS[decision.decision],
            old=decision.champion,
            new=challenger.version,
            digest=challenger.package_digest,
            reason=decision.reason,
            checks=decision.checks,
        )
    return decision


def _decide(
    entries: Sequence[Mapping[str, Any]] | None,
    challenger: VersionInfo,
    champion: VersionInfo | None,
    checks: Sequence[Check],
) -> Decision:
    """Weigh the gate's checks and the approval among the ledger's `entries`; None: none is needed.

    One that is needed and missing is an error.
    """
    if entries is None:
        said = conclusions.kept if unmet(checks) else conclusions.promoted
        return said(challenger, champion, checks)
    approval = standing_approval(entries, challenger.version)
    if approval is not None and approval.champion != (champion and champion.version):
        return conclusions.superseded(challenger, champion, approval, checks)
    if unmet(checks):
        return conclusions.kept(challenger, champion, checks)
    proof = approval_check(approval, challenger)
    return conclusions.promoted(challenger, champion, [*checks, proof])


def _confirm(settings: Settings, client: MlflowClient, champion: VersionInfo) -> Decision:
    """Say that the version is champion already, and complete a ledger that a crash cut short."""
    with promotion_lock(settings):
        holder = by_alias(client, CHAMPION)
        if holder is not None and holder.version == champion.version:
            anchor, digest = RegistryAnchor(client), champion.package_digest
            ledger.complete(ledger_path(settings), anchor, holder.version, digest)
            if holder.rolled_back:
                client.delete_model_version_tag(REGISTERED_MODEL, holder.version, ROLLED_BACK)
    return conclusions.unchanged(champion)
