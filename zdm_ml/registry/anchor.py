"""The ledger's anchor: one tag of the registered model, so that a shortened file is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zdm_ml.settings import REGISTERED_MODEL

if TYPE_CHECKING:
    from mlflow import MlflowClient

ANCHOR = "ledger_anchor"


@dataclass(frozen=True)
class RegistryAnchor:
    """Number and hash share one tag: two could be torn apart by a crash."""

    client: MlflowClient

    def read(self) -> str | None:
        """Return the tag as it stands, or None."""
        found: str | None = self.client.get_registered_model(REGISTERED_MODEL).tags.get(ANCHOR)
        return found

    def write(self, text: str) -> None:
        """Set the tag."""
        self.client.set_registered_model_tag(REGISTERED_MODEL, ANCHOR, text)
