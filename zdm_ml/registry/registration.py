"""`zdm register`: a published run's winner becomes a version with alias `challenger`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from zdm_ml.data.manifest import read_manifest
from zdm_ml.errors import RegistryError
from zdm_ml.registry.assembly import assemble
from zdm_ml.registry.connection import connect, registry_errors
from zdm_ml.registry.decision import Check, Decision, check
from zdm_ml.registry.finished import FinishedRun, describe, parent_params, parent_tags
from zdm_ml.registry.naming import display_name, leak_tags
from zdm_ml.registry.package import Package
from zdm_ml.registry.policy import committed_params
from zdm_ml.registry.publication import publish
from zdm_ml.registry.reuse import TEST_SET, count_uses, digest_of_test_castings
from zdm_ml.registry.runs import end_parent, ensure_parent, ensure_run
from zdm_ml.registry.versions import CHALLENGER, by_alias
from zdm_ml.settings import Settings, make_home

if TYPE_CHECKING:
    from mlflow import MlflowClient


def register_run(
    settings: Settings, run: FinishedRun, *, published: Callable[[str], bool]
) -> Decision:
    """Register the winner of a run; the same package again is `unchanged`.

    `published` says whether a run id is tagged and pushed: without that, no version may point to
    it. A selection that may not register is `not_eligible`.
    """
    uri, run_id = settings.mlflow_uri, run.record.run_id
    if not published(run_id):
        raise RegistryError(
            f"run {run_id} is not published: no tag run/{run_id} holds its dvc.lock",
            hint=f"`zdm workspace publish --run-id {run_id}`, then register again",
        )
    selection = run.selection
    eligible = check("selection", bool(selection["eligible"] and selection["winner"]))
    if eligible.state != "passed":
        with registry_errors(uri, "recording the trainings"):
            record_models(connect(uri), run, succeeded=False)
        reason = f"not registered: {selection['reason']}"
        return Decision(None, None, "not_eligible", reason, (eligible,), run_id)
    home = make_home(settings.home)
    with tempfile.TemporaryDirectory(dir=home, prefix=".register-") as temporary:
        package = _assemble(run, str(selection["winner"]), Path(temporary) / "package")
        checks = (eligible, Check("digests", "passed", package.info.digest[:12]))
        lock = home / "locks" / "register.lock"
        lock.parent.mkdir(exist_ok=True)
        with FileLock(lock), registry_errors(uri, "registering"):
            return _register(settings, connect(uri), run, package, checks)


def _assemble(run: FinishedRun, name: str, destination: Path) -> Package:
    return assemble(
        destination,
        model=run.paths["models"] / name,
        evaluation=run.paths["evaluation"] / name,
        rows=read_manifest(run.paths["manifest"]),
        castings=run.paths["castings"],
        source=run.source(name),
    )


def _test_set(run: FinishedRun) -> str:
    return digest_of_test_castings(read_manifest(run.paths["manifest"]))


def _register(
    settings: Settings,
    client: MlflowClient,
    run: FinishedRun,
    package: Package,
    checks: tuple[Check, ...],
) -> Decision:
    runs = record_models(client, run)
    run_of = runs[package.info.model_name]
    result = publish(client, package, run_of, started=run.record.started)
    holder = by_alias(client, CHALLENGER)
    alias = CHALLENGER if holder is not None and holder.version == result.version else None
    title = display_name(package.info.model_name, package.info.profile)
    if result.changed:
        reason = f"{title} of run {run.record.run_id} is version {result.version}"
        decision = "registered"
    else:
        reason = f"the same package of {title} is version {result.version} already"
        decision = "unchanged"
    level = committed_params(settings.root).select.test_uses
    reuse = count_uses(client, _test_set(run), level)
    checks = (*checks, check("test_uses", not reuse.worn, reuse.uses, level))
    if reuse.worn:
        reason = f"{reason}; {reuse.sentence}"
    return Decision(result.version, alias, decision, reason, checks, run.record.run_id)


def record_models(
    client: MlflowClient, run: FinishedRun, *, succeeded: bool = True
) -> dict[str, str]:
    """Return each trained model's MLflow run, filled in from files where the server missed it."""
    trained = [model for name in run.record.models if (model := describe(run, name)) is not None]
    record = run.record

    @cache
    def parent() -> str:
        return record.mlflow_run_id or ensure_parent(
            client, record.run_id, parent_params(record), parent_tags(record)
        )

    recorded = {model.model_name: ensure_run(client, model, parent) for model in trained}
    # A run that trained nothing has no parent, unless it was started as one.
    if record.mlflow_run_id or parent.cache_info().currsize:
        evaluated = [model.evaluation for model in trained if model.evaluation]
        end_parent(
            client,
            parent(),
            succeeded=succeeded,
            reports=run.paths["selection"].parent,
            # All models of a run are judged on one split.
            tags={**leak_tags(evaluated[0]), TEST_SET: _test_set(run)} if evaluated else {},
        )
    return recorded
