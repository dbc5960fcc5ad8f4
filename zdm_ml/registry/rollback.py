"""`zdm rollback` and `zdm verify-live`: the champion back to its predecessor, and served."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from zdm_ml.errors import RegistryError
from zdm_ml.registry import ledger
from zdm_ml.registry.connection import connect
from zdm_ml.registry.decision import Check, Decision
from zdm_ml.registry.gate import profile_check
from zdm_ml.registry.live import wait_until_served
from zdm_ml.registry.promotion import ledger_path, move_champion, promotion_lock
from zdm_ml.registry.selftest import self_test_in_clean_process
from zdm_ml.registry.versions import (
    CHAMPION,
    PREVIOUS,
    ROLLED_BACK,
    VersionInfo,
    by_alias,
    by_number,
    champion,
    download_package,
)
from zdm_ml.settings import REGISTERED_MODEL, Settings, make_home

if TYPE_CHECKING:
    from mlflow import MlflowClient


def rollback(settings: Settings, *, timeout: float) -> Decision:
    """Make the previous champion champion again, once it has proved to be intact.

    A second call finds the version it would return to marked as rolled back and changes nothing,
    so a repeated task cannot flip the champion forth. The server must follow within `timeout`.
    """
    client = connect(settings.mlflow_uri)
    with promotion_lock(settings):
        holder, target = _holder_and_target(settings, client)
        profile = profile_check(target.profile, holder.profile)
        if profile.state != "passed":
            raise RegistryError(
                f"{target.title} cannot replace {holder.title}: a demo never replaces a full model",
                hint="`zdm promote N --again` puts another version before the gate",
            )
        if target.rolled_back:
            reason = (
                f"{holder.title} stays: {target.title} was rolled back itself "
                f"(`zdm promote {target.version} --again` lets it back in)"
            )
            moved, checks = False, []
        else:
            checks = _prove(settings, target)
            reason = f"{target.title} is champion again, {holder.title} is rolled back"
            _move(settings, client, holder, target, reason, checks)
            moved = True
    version = target.version if moved else holder.version
    served = wait_until_served(settings.inference_url, version, timeout)
    return Decision(
        version,
        CHAMPION,
        "rolled_back" if moved else "unchanged",
        f"{reason}; {_serving(served)}",
        (*checks, served),
        target.run_id if moved else holder.run_id,
    )


def verify_live(settings: Settings, *, timeout: float) -> Decision:
    """Compare what the inference server answers with what the registry names as champion."""
    info = champion(settings.mlflow_uri)
    if info is None:
        return Decision(None, None, "no_champion", "no version is champion yet: nothing to verify")
    served = wait_until_served(settings.inference_url, info.version, timeout)
    decision = "live" if served.state == "passed" else "not_live"
    reason = f"{info.title} is the champion; {_serving(served)}"
    return Decision(info.version, CHAMPION, decision, reason, (served,), info.run_id)


def _holder_and_target(settings: Settings, client: MlflowClient) -> tuple[VersionInfo, VersionInfo]:
    holder, target = by_alias(client, CHAMPION), by_alias(client, PREVIOUS)
    if holder is not None and (target is None or target.version == holder.version):
        # A crash between the two alias moves leaves both on one version; the ledger knows better.
        known = ledger.predecessor(ledger_path(settings), holder.version)
        target = by_number(client, known) if known else None
    if holder is None or target is None:
        raise RegistryError(
            f"{REGISTERED_MODEL} has no {'previous' if holder else 'champion'} to roll back"
            f"{' to' if holder else ''}",
            hint="a second promotion makes the first champion the previous one",
        )
    return holder, target


def _prove(settings: Settings, target: VersionInfo) -> list[Check]:
    home = make_home(settings.home)
    with tempfile.TemporaryDirectory(dir=home, prefix=".rollback-") as temporary:
        folder = download_package(settings.mlflow_uri, target.version, Path(temporary) / "package")
        deviation = self_test_in_clean_process(folder)
    return [
        Check("digests", "passed", target.package_digest[:12]),
        Check("golden", "passed", deviation),
    ]


def _move(
    settings: Settings,
    client: MlflowClient,
    holder: VersionInfo,
    target: VersionInfo,
    reason: str,
    checks: list[Check],
) -> None:
    when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    client.set_model_version_tag(REGISTERED_MODEL, holder.version, ROLLED_BACK, when)
    move_champion(client, holder, target)
    ledger.append(
        ledger_path(settings),
        action="rollback",
        old=holder.version,
        new=target.version,
        reason=reason,
        checks=checks,
    )


def _serving(served: Check) -> str:
    if served.state == "passed":
        return f"the inference server answers with version {served.value}"
    if served.state == "broken":
        return f"{served.value}; `zdm up` starts one, which serves version {served.limit}"
    return f"the inference server answers with {served.value} instead of version {served.limit}"
