"""A registry that is a folder, for tests of what follows one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from zdm_ml.errors import RegistryError
from zdm_ml.files import read_json
from zdm_ml.serving.source import Champion


@dataclass
class FolderSource:
    """Packages by version; `broken` ones cannot be fetched."""

    folders: dict[str, Path]
    current: str | None = "1"
    reachable: bool = True
    fetched: list[str] = field(default_factory=list)

    def champion(self) -> Champion | None:
        if not self.reachable:
            raise RegistryError("the folder is away")
        if self.current is None:
            return None
        digest = read_digest(self.folders[self.current])
        return Champion(self.current, f"run-{self.current}", digest)

    def fetch(self, version: str, destination: Path) -> Path:
        self.fetched.append(version)
        return Path(shutil.copytree(self.folders[version], destination / "package"))


def read_digest(folder: Path) -> str:
    """Return what the registry's tag says, whatever happened to the files."""
    return str(read_json(folder / "package.json")["digest"])
