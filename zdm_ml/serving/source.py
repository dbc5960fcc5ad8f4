"""Where approved packages come from: a protocol, and the registry behind it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zdm_ml.registry import versions
from zdm_ml.registry.connection import Patience

WATCHING = Patience(timeout_seconds=5, retries=0)
"""The alias is asked for again soon: a slow answer must not hold up a boot."""


@dataclass(frozen=True)
class Champion:
    """The version that the alias `champion` names; `digest` is empty where it is not stated."""

    version: str
    run_id: str
    digest: str


class PackageSource(Protocol):
    """Both calls may block; both raise `RegistryError` when the registry is out of reach."""

    def champion(self) -> Champion | None:
        """Return the approved version, or None when there is none."""

    def fetch(self, version: str, destination: Path) -> Path:
        """Download a version's package into `destination` and return its folder."""


class RegistrySource:
    """The MLflow registry at `uri`; its answers are waited for only briefly."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def champion(self) -> Champion | None:
        """Return the approved version, or None when there is none."""
        found = versions.champion(self._uri, WATCHING)
        if found is None:
            return None
        return Champion(found.version, found.run_id, found.package_digest)

    def fetch(self, version: str, destination: Path) -> Path:
        """Download a version's package into `destination` and return its folder."""
        return versions.download_package(self._uri, version, destination / "package")
