"""Verified packages on this machine, by digest, and which of them served last."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from zdm_ml.errors import PackageError
from zdm_ml.files import read_json, write_json
from zdm_ml.registry.package import Package, load_package
from zdm_ml.serving.source import Champion, PackageSource

log = logging.getLogger(__name__)


class PackageCache:
    """`<state>/packages/<digest>/` and `<state>/last.json`; one writer at a time."""

    def __init__(self, state: Path) -> None:
        self._packages = state / "packages"
        self._last = state / "last.json"

    def obtain(self, champion: Champion, source: PackageSource) -> Package:
        """Return the champion's package, verified and self-tested, downloaded where needed."""
        try:
            return self._open(champion)
        except PackageError as error:
            log.info("package of version %s comes from the registry: %s", champion.version, error)
        with self._staging() as folder:
            package = _verified(source.fetch(champion.version, folder), champion.digest)
            kept = self._packages / package.info.digest
            shutil.rmtree(kept, ignore_errors=True)
            package.folder.rename(kept)
        return package

    def last(self) -> tuple[Champion, Package] | None:
        """Return what served last, verified again; None when nothing did."""
        try:
            champion = Champion(**read_json(self._last))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise PackageError(f"{self._last} cannot be read: {error}") from error
        return champion, self._open(champion)

    def remember(self, champion: Champion) -> None:
        """Name the version to serve while the registry is away."""
        write_json(self._last, asdict(champion))

    def forget(self) -> None:
        """Serve nothing while the registry is away: the last version is no longer approved."""
        self._last.unlink(missing_ok=True)

    def prune(self, keep: set[str]) -> None:
        """Delete the packages of all other digests."""
        for folder in self._packages.iterdir():
            if folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)

    def _open(self, champion: Champion) -> Package:
        folder = self._packages / champion.digest
        if not champion.digest or not folder.is_dir():
            raise PackageError(f"no local copy of version {champion.version}")
        return _verified(folder, champion.digest)

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        self._packages.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=self._packages, prefix=".fetch-", ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)


def _verified(folder: Path, digest: str) -> Package:
    package = load_package(folder)
    if digest and package.info.digest != digest:
        raise PackageError(
            f"package {folder} has digest {package.info.digest[:12]}, "
            f"its version was registered with {digest[:12]}"
        )
    package.self_test()
    return package
