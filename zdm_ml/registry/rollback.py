"""`zdm rollback` and `zdm verify-live`: the champion back to an earlier one, and served."""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zdm_ml.errors import RegistryError
from zdm_ml.registry import ledger
from zdm_ml.registry.anchor import RegistryAnchor
from zdm_ml.registry.connection import connect
from zdm_ml.registry.decision import Check, Decision
from zdm_ml.registry.gate import profile_check
from zdm_ml.registry.ledger import ledger_path
from zdm_ml.registry.live import wait_until_served
from zdm_ml.registry.promotion import move_champion, promotion_lock
from zdm_ml.registry.selftest import self_test_in_clean_process
from zdm_ml.registry.versions import (
    CHAMPION,
    PREVIOUS,
    ROLLED_BACK,
    VersionInfo,
    all_versions,
    by_alias,
    by_number,
    champion,
    download_package,
    is_older,
)
from zdm_ml.settings import REGISTERED_MODEL, Settings, make_home

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Request:
    """Why the champion is to go, and where to: a version's number, or None for its predecessor.

    `who` asks, if that is not the account that runs the command; `asked` is when, ISO 8601: a
    champion that moved after that was not meant.
    """

    reason: str
    to: str | None = None
    who: str | None = None
    asked: str | None = None


def rollback(settings: Settings, request: Request, *, timeout: float) -> Decision:
    """Make an earlier champion champion again, once it has proved to be intact.

    Without a number, a second call finds the version it would return to marked as rolled back and
    changes nothing; with one, it finds it champion: a repeated task cannot flip the champion
    forth. The server must follow within `timeout` seconds.
    """
    client = connect(settings.mlflow_uri)
    checks: list[Check] = []
    with promotion_lock(settings):
        holder = by_alias(client, CHAMPION)
        if holder is None:
            raise _nothing_to_roll_back(CHAMPION)
        overtaken = ledger.moved_since(ledger_path(settings), request.asked)
        target = holder if overtaken else _target(settings, client, holder, request)
        stays = _why_it_stays(holder, target, request)
        if overtaken:
            stays = f"{holder.title} stays: it became champion after this rollback was asked for"
            _record_overtaken(settings, client, holder, request, stays)
        elif stays:
            _complete_ledger(settings, client, holder, request.reason, request.who)
        else:
            _complete_ledger(settings, client, holder, "its line was missing", None)
            checks = _prove(settings, target)
            _move(settings, client, holder, target, request, checks)
    now = holder if stays else target
    served = wait_until_served(settings.inference_url, now.version, timeout)
    moved = f"{target.title} is champion again, {holder.title} is rolled back: {request.reason}"
    return Decision(
        now.version,
        CHAMPION,
        "unchanged" if stays else "rolled_back",
        f"{stays or moved}; {_serving(served)}",
        (*checks, served),
        now.run_id,
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


def _target(
    settings: Settings, client: MlflowClient, holder: VersionInfo, request: Request
) -> VersionInfo:
    if request.to is None:
        return _previous(settings, client, holder)
    return _earlier_champion(settings, client, holder, request.to)


def _previous(settings: Settings, client: MlflowClient, holder: VersionInfo) -> VersionInfo:
    target = by_alias(client, PREVIOUS)
    if target is None or target.version == holder.version:
        # A crash between the two alias moves leaves both on one version; the ledger knows better.
        known = ledger.predecessor(ledger_path(settings), holder.version)
        target = by_number(client, known) if known else None
    if target is None:
        raise _nothing_to_roll_back(PREVIOUS)
    return target


def _earlier_champion(
    settings: Settings, client: MlflowClient, holder: VersionInfo, number: str
) -> VersionInfo:
    """Return the version; one that never was champion has not passed the gate."""
    target = by_number(client, number)
    known = ledger.champions(ledger_path(settings)) | {holder.version}
    if target.version in known:
        return target
    again = " --again" if is_older(target, holder) else ""
    raise RegistryError(
        f"{target.title} never was champion: a rollback is no way round the gate",
        hint=f"`zdm promote {target.version}{again}` puts it before the gate",
    )


def _nothing_to_roll_back(missing: str) -> RegistryError:
    to = " to" if missing == PREVIOUS else ""
    return RegistryError(
        f"{REGISTERED_MODEL} has no {missing} to roll back{to}",
        hint="a second promotion makes the first champion the previous one",
    )


def _why_it_stays(holder: VersionInfo, target: VersionInfo, request: Request) -> str:
    """Return why the champion stays, or nothing; a demo in place of a full model is refused."""
    if target.version == holder.version:
        return f"{holder.title} is the champion already"
    if profile_check(target.profile, holder.profile).state != "passed":
        raise RegistryError(
            f"{target.title} cannot replace {holder.title}: a demo never replaces a full model",
            hint="`zdm promote N --again` puts another version before the gate",
        )
    if target.rolled_back and request.to is None:
        return (
            f"{holder.title} stays: {target.title} was rolled back itself "
            f"(`zdm rollback --to {target.version}` returns to it all the same)"
        )
    return ""


def _complete_ledger(
    settings: Settings, client: MlflowClient, holder: VersionInfo, reason: str, who: str | None
) -> None:
    """Write down how the champion became it, if a crash left that out."""
    path, anchor = ledger_path(settings), RegistryAnchor(client)
    previous = by_alias(client, PREVIOUS)
    if previous is None or not previous.rolled_back:
        ledger.complete(path, anchor, holder.version, holder.package_digest)
        return
    # The mark on the version before shows that a rollback was cut short, and not a promotion.
    _pass_over(settings, client, holder)
    ledger.complete(
        path,
        anchor,
        holder.version,
        holder.package_digest,
        action="rollback",
        reason=reason,
        who=who,
    )


def _pass_over(settings: Settings, client: MlflowClient, target: VersionInfo) -> None:
    """Mark who became champion since the target was: none of them must come back by itself."""
    later = ledger.followers(ledger_path(settings), target.version)
    when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    for version in sorted(later & {str(each.version) for each in all_versions(client)}):
        client.set_model_version_tag(REGISTERED_MODEL, version, ROLLED_BACK, when)


def _record_overtaken(
    settings: Settings, client: MlflowClient, holder: VersionInfo, request: Request, reason: str
) -> None:
    """Write down a rollback that came too late; a retry adds nothing."""
    path, said = ledger_path(settings), f"{reason}: {request.reason}"
    last = ledger.read(path)[-1:]
    if last and (last[0].get("action"), last[0].get("reason")) == ("keep", said):
        return
    ledger.append(
        path,
        RegistryAnchor(client),
        action="keep",
        old=holder.version,
        new=holder.version,
        digest=holder.package_digest,
        reason=said,
        who=request.who,
    )


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
    request: Request,
    checks: list[Check],
) -> None:
    when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    client.set_model_version_tag(REGISTERED_MODEL, holder.version, ROLLED_BACK, when)
    client.delete_model_version_tag(REGISTERED_MODEL, target.version, ROLLED_BACK)
    move_champion(client, holder, target)
    _pass_over(settings, client, target)
    ledger.append(
        ledger_path(settings),
        RegistryAnchor(client),
        action="rollback",
        old=holder.version,
        new=target.version,
        digest=target.package_digest,
        reason=request.reason,
        checks=checks,
        who=request.who,
    )


def _serving(served: Check) -> str:
    if served.state == "passed":
        return f"the inference server answers with version {served.value}"
    if served.state == "broken":
        return f"{served.value}; `zdm up` starts one, which serves version {served.limit}"
    return f"the inference server answers with {served.value} instead of version {served.limit}"
