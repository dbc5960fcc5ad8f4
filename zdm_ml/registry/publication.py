"""Make a package a version of the registered model, once, whatever crashes in between."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zdm_ml.registry.mlmodel import save_mlflow_model
from zdm_ml.registry.naming import leak_tags
from zdm_ml.registry.package import Package
from zdm_ml.registry.runs import ensure_experiment
from zdm_ml.registry.versions import CHALLENGER, STARTED, all_versions, by_alias
from zdm_ml.settings import REGISTERED_MODEL

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

# The alias is not part of the version: this tag tells a finished registration from one that
# crashed before its alias was set.
STATE, ANNOUNCED = "registration", "announced"


@dataclass(frozen=True)
class Published:
    """A version of the registered model; `changed` is false when it was all there before."""

    version: str
    changed: bool


def publish(
    client: MlflowClient, package: Package, mlflow_run_id: str, *, started: str
) -> Published:
    """Return the version that holds `package`, made or completed as needed.

    The caller holds the registration lock; `started` is when the retraining began. Order: model
    artifacts, version with all its tags (one transaction), alias `challenger`, mark. A rerun picks
    up at the first step that is missing.
    """
    version = find_version(client, package.info.digest)
    changed = version is None
    if version is None:
        entry = _ready_model(client, package, mlflow_run_id)
        version = _create_version(client, package, entry, started)
    repaired = _restore_tags(client, version, version_tags(package))
    announced = _announce(client, version)
    return Published(str(version.version), changed or repaired or announced)


def find_version(client: MlflowClient, digest: str) -> ModelVersion | None:
    """Return the version of a package by its digest, or by the model that holds it."""
    found = all_versions(client, f"tags.package_digest = '{digest}'")
    if found:
        return found[0]
    sources = {f"models:/{entry.model_id}" for entry in _models(client, digest)}
    by_source = [version for version in all_versions(client) if version.source in sources]
    return by_source[0] if by_source else None


def version_tags(package: Package) -> dict[str, str]:
    """Return the tags by which a version is found and audited."""
    info = package.info
    return {
        "model_name": info.model_name,
        "profile": info.profile,
        "data_md5": info.data_md5,
        "git_commit": info.git_commit,
        "dvc_lock_md5": info.dvc_lock_md5,
        "params_hash": info.params_hash,
        "package_digest": info.digest,
        "trained_on_digest": info.trained_on_digest,
        "model_digest": package.net.spec.digest,
        "run_id": info.run_id,
        "demo": "false" if info.profile == "full" else "true",
        **leak_tags(package.metrics),
    }


def _models(client: MlflowClient, digest: str) -> list[LoggedModel]:
    found = client.search_logged_models(
        [ensure_experiment(client)], filter_string=f"tags.package_digest = '{digest}'"
    )
    return [entry for entry in found if entry.status == "READY"]


def _ready_model(client: MlflowClient, package: Package, mlflow_run_id: str) -> LoggedModel:
    """Return the uploaded model: one that an interrupted registration left, or a fresh one."""
    found = _models(client, package.info.digest)
    if found:
        return found[0]
    entry = client.create_logged_model(
        ensure_experiment(client),
        name=REGISTERED_MODEL,
        source_run_id=mlflow_run_id,
        tags={"package_digest": package.info.digest},
        params={"model_name": package.info.model_name, "profile": package.info.profile},
    )
    with tempfile.TemporaryDirectory(prefix="zdm-mlflow-") as temporary:
        folder = Path(temporary) / "model"
        save_mlflow_model(folder, package, entry)
        client.log_model_artifacts(entry.model_id, str(folder))
    return client.finalize_logged_model(entry.model_id, "READY")


def _create_version(
    client: MlflowClient, package: Package, entry: LoggedModel, started: str
) -> ModelVersion:
    _ensure_registered_model(client)
    return client.create_model_version(
        REGISTERED_MODEL,
        source=f"models:/{entry.model_id}",
        run_id=entry.source_run_id,
        # Not among the tags that are restored: an older version keeps its own start, or none.
        tags={**version_tags(package), STARTED: started},
        description=(package.folder / "MODEL_CARD.md").read_text(),
        model_id=entry.model_id,
    )


def _ensure_registered_model(client: MlflowClient) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            REGISTERED_MODEL, description="Judges images of castings: ok or defect."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _restore_tags(client: MlflowClient, version: ModelVersion, tags: Mapping[str, str]) -> bool:
    # Where the version came from first is kept: a later run may produce the same package.
    missing = {key: value for key, value in tags.items() if key not in (version.tags or {})}
    for key, value in missing.items():
        client.set_model_version_tag(REGISTERED_MODEL, str(version.version), key, value)
    return bool(missing)


def _announce(client: MlflowClient, version: ModelVersion) -> bool:
    """Give an unannounced version the alias `challenger`, unless a later one has it already."""
    if (version.tags or {}).get(STATE) == ANNOUNCED:
        return False
    holder = by_alias(client, CHALLENGER)
    if holder is None or int(holder.version) < int(version.version):
        client.set_registered_model_alias(REGISTERED_MODEL, CHALLENGER, str(version.version))
    client.set_model_version_tag(REGISTERED_MODEL, str(version.version), STATE, ANNOUNCED)
    return True
