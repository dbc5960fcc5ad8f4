"""What a person is shown and asked before a promotion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zdm_ml.registry.connection import connect, registry_errors
from zdm_ml.registry.decision import Decision, Value
from zdm_ml.registry.filing import PACKET, model_of
from zdm_ml.registry.packet import FOLDER, PAGE
from zdm_ml.registry.policy import ApprovalPolicy, approval_policy
from zdm_ml.registry.versions import VersionInfo, by_number
from zdm_ml.settings import REGISTERED_MODEL, Settings


def approval_request(settings: Settings, decision: Decision, *, ask: bool) -> dict[str, Any] | None:
    """Return what to ask before the promotion that a gate lets through; None: nobody is asked.

    `ask` adds a request where params.yaml demands none; it cannot take one away.
    """
    if decision.decision != "promotable" or decision.version is None:
        return None
    client, policy = connect(settings.mlflow_uri), approval_policy(settings.root)
    with registry_errors(settings.mlflow_uri, "asking for the versions"):
        challenger = by_number(client, decision.version)
        champion = by_number(client, decision.champion) if decision.champion else None
        run = client.get_run(challenger.mlflow_run_id).info
        model = model_of(client, challenger)
    if not (ask or policy.requires(challenger.profile)):
        return None
    return {
        "approvers": list(policy.approvers),
        "hours": policy.hours,
        "subject": f"Promote {challenger.title}?",
        "body": request_text(
            decision,
            challenger,
            champion,
            policy,
            settings.mlflow_uri,
            packet=f"/#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/{FOLDER}/{PAGE}",
            kept=f"/#/experiments/{run.experiment_id}/models/{model}/artifacts" if model else "",
        ),
    }


def request_text(
    decision: Decision,
    challenger: VersionInfo,
    champion: VersionInfo | None,
    policy: ApprovalPolicy,
    mlflow_uri: str,
    *,
    packet: str,
    kept: str = "",
) -> str:
    """Return the request as Markdown: the version, the gate's checks, what each answer does.

    `packet` is where MLflow's pages show the latest decision packet, `kept` where they list all of
    this version's.
    """
    replaced = f"replace **{champion.title}**" if champion else "be the first champion"
    still = (
        f"version {champion.version} is still champion"
        if champion
        else "there is still no champion"
    )
    link = f"{mlflow_uri}/#/models/{REGISTERED_MODEL}/versions/{challenger.version}"
    facts = {
        "in MLflow": f"[{REGISTERED_MODEL}, version {challenger.version}]({link})",
        "evidence": f"[decision packet]({mlflow_uri}{packet}){_kept(decision, mlflow_uri, kept)}",
        "package": _code(decision.digest),
        "images": _code(challenger.data_md5),
        "code": _code(challenger.git_commit),
        "retraining": _code(challenger.run_id),
    }
    checks = [
        (_cell(item.name), item.state, _cell(item.value), _cell(item.limit))
        for item in decision.checks
    ]
    return "\n".join(
        [
            f"**{challenger.title}** would {replaced}.",
            "",
            decision.reason,
            "",
            *_table(("", ""), list(facts.items())),
            "",
            *_table(("check", "state", "value", "limit"), checks),
            "",
            "**Approve**: the gate is asked again, and `champion` moves to exactly this package if "
            f"it holds and {still}. **Reject**, or no answer within {policy.hours:g} hours: the "
            f"champion stays. May answer: {', '.join(policy.approvers)}.",
        ]
    )


def _kept(decision: Decision, mlflow_uri: str, kept: str) -> str:
    """Return where exactly this packet stays, also when the gate is asked again."""
    named = next((str(item.value) for item in decision.checks if item.name == PACKET), None)
    if not kept or named is None:
        return ""
    return f", kept as `{FOLDER}/{named}/{PAGE}` in the [model's artifacts]({mlflow_uri}{kept})"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _code(text: str | None) -> str:
    return f"`{_cell(text).replace('`', '')}`" if text else "unknown"


def _cell(value: Value) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
