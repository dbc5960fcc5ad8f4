"""What an effect on the registry answers: a decision, its reason and the checks behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

CheckState = Literal["passed", "failed", "broken"]
Value = float | int | str | None


@dataclass(frozen=True)
class Check:
    """`failed`: measured, and not good enough; `broken`: it could not be measured."""

    name: str
    state: CheckState
    value: Value = None
    limit: Value = None


@dataclass(frozen=True)
class Decision:
    """The answer of register, promote and rollback; `alias` is where the version stands now.

    `digest` is the package that was looked at, `champion` the version it was compared with.
    """

    version: str | None
    alias: str | None
    decision: str
    reason: str
    checks: tuple[Check, ...] = ()
    run_id: str | None = None
    digest: str | None = None
    champion: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the stable keys of the machine-readable output."""
        return asdict(self) | {"checks": [asdict(check) for check in self.checks]}


def check(name: str, passed: bool, value: Value = None, limit: Value = None) -> Check:
    """Return a measured check."""
    return Check(name, "passed" if passed else "failed", value, limit)


def unmet(checks: Iterable[Check]) -> list[Check]:
    """Return the checks that did not pass, broken ones first."""
    return sorted((c for c in checks if c.state != "passed"), key=lambda c: c.state)
