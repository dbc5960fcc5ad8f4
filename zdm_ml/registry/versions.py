"""Versions of the registered model: who is champion, and its package, verified."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zdm_ml.errors import PackageError, RegistryError
from zdm_ml.registry.connection import EFFECT, Patience, connect, registry_errors
from zdm_ml.registry.mlmodel import PACKAGE_FOLDER
from zdm_ml.registry.naming import display_name
from zdm_ml.registry.package import read_info
from zdm_ml.settings import REGISTERED_MODEL

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ROLLED_BACK, STARTED = "rolled_back", "run_started"


@dataclass(frozen=True)
class VersionInfo:
    """One model version as its tags tell it; `run_id` is the retraining that made it.

    `started` is when that retraining began, UTC; empty where that was not kept.
    """

    version: str
    model_name: str
    run_id: str
    mlflow_run_id: str
    profile: str
    package_digest: str
    data_md5: str
    git_commit: str
    rolled_back: bool = False
    started: str = ""

    @property
    def title(self) -> str:
        """Return the version as people read it, demos marked."""
        return f"version {self.version}, {display_name(self.model_name, self.profile)}"


ChampionInfo = VersionInfo


def champion(uri: str, patience: Patience = EFFECT) -> ChampionInfo | None:
    """Return the approved version, or None while there is none."""
    client = connect(uri, patience)
    with registry_errors(uri, "asking for the champion"):
        return by_alias(client, CHAMPION)


def by_alias(client: MlflowClient, alias: str) -> VersionInfo | None:
    """Return the version an alias points to, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return version_info(client.get_model_version_by_alias(REGISTERED_MODEL, alias))
    except MlflowException as error:
        # A missing alias of a known model counts as an invalid parameter.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def by_number(client: MlflowClient, version: str) -> VersionInfo:
    """Return a version by number; an unknown one raises `RegistryError`."""
    from mlflow.exceptions import MlflowException

    try:
        return version_info(client.get_model_version(REGISTERED_MODEL, version))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise RegistryError(
            f"{REGISTERED_MODEL} has no version {version!r}",
            hint="the MLflow page of the registered model lists its versions",
        ) from error


def resolve(client: MlflowClient, wanted: str) -> VersionInfo:
    """Return a version by number or alias."""
    if wanted.isdigit():
        return by_number(client, wanted)
    found = by_alias(client, wanted)
    if found is None:
        raise RegistryError(
            f"{REGISTERED_MODEL} has no {wanted}",
            hint="`zdm register --run-id ID` makes a finished run the challenger",
        )
    return found


def version_info(version: ModelVersion) -> VersionInfo:
    """Read a version's tags; one that the product did not register has none of them."""
    tags = version.tags or {}
    return VersionInfo(
        version=str(version.version),
        model_name=tags.get("model_name", "unknown"),
        run_id=tags.get("run_id", ""),
        mlflow_run_id=version.run_id or "",
        profile=tags.get("profile", "unknown"),
        package_digest=tags.get("package_digest", ""),
        data_md5=tags.get("data_md5", ""),
        git_commit=tags.get("git_commit", ""),
        rolled_back=ROLLED_BACK in tags,
        started=tags.get(STARTED, ""),
    )


def is_older(version: VersionInfo, than: VersionInfo) -> bool:
    """Tell whether a version comes from an earlier retraining, or from the same one earlier.

    A retraining that is cleared keeps its start, whatever number its next version gets. Without a
    start on both sides the numbers decide.
    """
    if version.started and than.started and version.started != than.started:
        return version.started < than.started
    return int(version.version) < int(than.version)


def download_package(uri: str, version: str, destination: Path) -> Path:
    """Return `destination` holding the version's package, verified against the version's tag.

    A verified copy already there is kept; anything else there is replaced, at once and as a
    whole. Raises `PackageError` for an altered package, `RegistryError` when out of reach.
    """
    client = connect(uri)
    with registry_errors(uri, f"asking for version {version}"):
        info = resolve(client, version)
    if _is_verified(destination, info.package_digest):
        return destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".download-") as temporary:
        fetched = _fetch(client, uri, info.version, Path(temporary))
        found = read_info(fetched).digest
        if found != info.package_digest:
            raise PackageError(
                f"version {info.version} holds package {found[:12]}, its tag says "
                f"{info.package_digest[:12] or 'nothing'}",
                hint="do not use this version; register its run again",
            )
        if destination.exists():
            destination.rename(Path(temporary) / "replaced")
        fetched.rename(destination)
    return destination


def _fetch(client: MlflowClient, uri: str, version: str, folder: Path) -> Path:
    import mlflow.artifacts

    with registry_errors(uri, f"downloading version {version}"):
        location = client.get_model_version_download_uri(REGISTERED_MODEL, version)
        mlflow.artifacts.download_artifacts(
            artifact_uri=f"{location}/{PACKAGE_FOLDER}", dst_path=str(folder), tracking_uri=uri
        )
    return folder / PACKAGE_FOLDER


def _is_verified(folder: Path, digest: str) -> bool:
    if not folder.is_dir():
        return False
    try:
        return read_info(folder).digest == digest
    except PackageError:
        return False


def registered_runs(uri: str) -> set[str]:
    """Return the ids of the retrainings that any version of the registered model came from."""
    client = connect(uri)
    with registry_errors(uri, "listing the versions"):
        return {info.run_id for info in map(version_info, all_versions(client)) if info.run_id}


def all_versions(client: MlflowClient, tags: str = "") -> list[ModelVersion]:
    """Return all versions that match a filter on tags, the oldest first."""
    clauses = f"name = '{REGISTERED_MODEL}'" + (f" and {tags}" if tags else "")
    found: list[ModelVersion] = []
    token: str | None = None
    while token != "":
        page = client.search_model_versions(clauses, max_results=1000, page_token=token)
        found.extend(page)
        token = page.token or ""
    return sorted(found, key=lambda version: int(version.version))
