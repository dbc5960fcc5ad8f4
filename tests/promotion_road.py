"""What a process does in the drills: register a run, gate it, promote it. Started by a server
of forks that has MLflow and torch loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from zdm_ml.errors import RegistryError
from zdm_ml.registry.finished import FinishedRun
from zdm_ml.registry.promotion import gate, promote
from zdm_ml.registry.registration import register_run
from zdm_ml.settings import Settings

REFUSED = 3


@dataclass(frozen=True)
class Road:
    """A finished run on its way to production; with `gate_first` by way of `gate` as well."""

    settings: Settings
    run: FinishedRun
    castings: Path
    gate_first: bool

    def __call__(self) -> None:
        try:
            registered = register_run(self.settings, self.run, published=lambda _: True)
            version, digest = str(registered.version), None
            if self.gate_first:
                digest = gate(self.settings, version, images_for=self._images).digest
            promote(self.settings, version, images_for=self._images, digest=digest)
        except RegistryError as error:
            (self.run.root / "refused.txt").write_text(str(error))
            os._exit(REFUSED)

    def _images(self, _: str) -> Path:
        return self.castings
