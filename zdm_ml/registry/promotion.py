"""`zdm gate` and `zdm promote`: check a version, then move the alias `champion`, last."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from filelock import FileLock

from zdm_ml.errors import RegistryError
from zdm_ml.params import parse_params
from zdm_ml.pipeline.commands import git
from zdm_ml.registry import ledger
from zdm_ml.registry.anchor import RegistryAnchor
from zdm_ml.registry.connection import connect, registry_errors
from zdm_ml.registry.decision import Check, Decision, unmet
from zdm_ml.registry.evidence import Contest, ImagesFor, examine
from zdm_ml.registry.gate import Policy, explain
from zdm_ml.registry.ledger import ledger_path
from zdm_ml.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    ROLLED_BACK,
    VersionInfo,
    by_alias,
    resolve,
)
from zdm_ml.settings import REGISTERED_MODEL, Settings, make_home

if TYPE_CHECKING:
    from mlflow import MlflowClient

SHOWN = ("escapes", "cost_per_image", "balanced_accuracy")
ATTEMPTS = 3
"""How often the gate is repeated when another promotion moved the champion meanwhile."""


def policy_for(root: Path, profile: str) -> Policy:
    """Return the limits of the committed params.yaml for a model of `profile`.

    What is not committed does not count: `zdm profile smoke` must not lower the gate for full
    models.
    """
    params = parse_params(yaml.safe_load(git(root, "show", "HEAD:params.yaml")), "params.yaml")
    promote = params.promote
    return Policy(
        # A profile without a floor has no business in production.
        floor=promote.floors.get(profile, 1.0),
        min_castings=promote.min_castings.get(profile, max(promote.min_castings.values())),
        cost_tolerance=promote.cost_tolerance,
        overkill_weight=params.cost.overkill_weight,
    )


def gate(settings: Settings, wanted: str, *, images_for: ImagesFor) -> Decision:
    """Return what the gate says of a version, without moving anything."""
    client = connect(settings.mlflow_uri)
    with registry_errors(settings.mlflow_uri, "asking for the versions"):
        challenger, champion = resolve(client, wanted), by_alias(client, CHAMPION)
    if champion is not None and champion.version == challenger.version:
        return _unchanged(champion)
    checks = _examine(settings, challenger, champion, images_for)
    if unmet(checks):
        return _kept(challenger, champion, checks)
    return Decision(
        challenger.version,
        None,
        "promotable",
        f"{challenger.title} passes",
        tuple(checks),
        challenger.run_id,
    )


def promote(
    settings: Settings, wanted: str, *, images_for: ImagesFor, again: bool = False
) -> Decision:
    """Make a version champion if the gate lets it; otherwise the champion is kept.

    `again` lets a version in that was rolled back, or is older than the champion. The alias moves
    under a lock, and only if the champion is still the one that the gate compared with.
    """
    client = connect(settings.mlflow_uri)
    for _ in range(ATTEMPTS):
        with registry_errors(settings.mlflow_uri, "asking for the versions"):
            challenger, champion = resolve(client, wanted), by_alias(client, CHAMPION)
        if champion is not None and champion.version == challenger.version:
            return _confirm(settings, client, champion)
        checks = _examine(settings, challenger, champion, images_for, again=again)
        decision = _conclude(settings, client, challenger, champion, checks)
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


def _examine(
    settings: Settings,
    challenger: VersionInfo,
    champion: VersionInfo | None,
    images_for: ImagesFor,
    *,
    again: bool = False,
) -> list[Check]:
    home = make_home(settings.home)
    with tempfile.TemporaryDirectory(dir=home, prefix=".gate-") as temporary:
        contest = Contest(
            uri=settings.mlflow_uri,
            challenger=challenger,
            champion=champion,
            folder=Path(temporary),
            images_for=images_for,
            policy=policy_for(settings.root, challenger.profile),
            again=again,
        )
        return examine(contest)


def _conclude(
    settings: Settings,
    client: MlflowClient,
    challenger: VersionInfo,
    champion: VersionInfo | None,
    checks: Sequence[Check],
) -> Decision | None:
    """Move the alias or keep it, and write it down; None when the champion has changed."""
    with promotion_lock(settings):
        holder = by_alias(client, CHAMPION)
        if (holder and holder.version) != (champion and champion.version):
            return None
        promoted = not unmet(checks)
        decision = (
            _promoted(challenger, champion, checks)
            if promoted
            else _kept(challenger, champion, checks)
        )
        if promoted:
            move_champion(client, champion, challenger)
            client.delete_model_version_tag(REGISTERED_MODEL, challenger.version, ROLLED_BACK)
        ledger.append(
            ledger_path(settings),
            RegistryAnchor(client),
            action="promote" if promoted else "keep",
            old=champion.version if champion else None,
            new=challenger.version,
            digest=challenger.package_digest,
            reason=decision.reason,
            checks=checks,
        )
    return decision


def _confirm(settings: Settings, client: MlflowClient, champion: VersionInfo) -> Decision:
    """Say that the version is champion already, and complete a ledger that a crash cut short."""
    with promotion_lock(settings):
        holder = by_alias(client, CHAMPION)
        if holder is not None and holder.version == champion.version:
            anchor, digest = RegistryAnchor(client), champion.package_digest
            ledger.complete(ledger_path(settings), anchor, holder.version, digest)
    return _unchanged(champion)


def _unchanged(champion: VersionInfo) -> Decision:
    reason = f"{champion.title} is the champion already"
    return Decision(champion.version, CHAMPION, "unchanged", reason, (), champion.run_id)


def _promoted(
    challenger: VersionInfo, champion: VersionInfo | None, checks: Sequence[Check]
) -> Decision:
    replaced = f"replaces {champion.title}" if champion else "is the first champion"
    reason = f"{challenger.title} {replaced}: {_figures(checks)}"
    return Decision(
        challenger.version, CHAMPION, "promoted", reason, tuple(checks), challenger.run_id
    )


def _kept(
    challenger: VersionInfo, champion: VersionInfo | None, checks: Sequence[Check]
) -> Decision:
    kept = f"champion kept ({champion.title})" if champion else "no champion yet"
    reason = f"{kept}; {challenger.title} not promoted: {explain(checks)}"
    return Decision(challenger.version, None, "kept", reason, tuple(checks), challenger.run_id)


def _figures(checks: Sequence[Check]) -> str:
    named = {item.name: item for item in checks}
    shown = [named[name] for name in SHOWN if name in named]
    return ", ".join(
        f"{item.name} {item.value:.4g} (limit {item.limit:.4g})"
        for item in shown
        if isinstance(item.value, int | float) and isinstance(item.limit, int | float)
    )
