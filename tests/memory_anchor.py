"""An anchor in memory, for tests of the ledger that need no MLflow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class MemoryAnchor:
    """`broken` makes it fail as a server does that dies between the line and its anchor."""

    text: str | None = None
    broken: bool = False

    def read(self) -> str | None:
        if self.broken:
            raise ConnectionError("no server")
        return self.text

    def write(self, text: str) -> None:
        self.text = text
