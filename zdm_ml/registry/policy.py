"""What the committed params.yaml demands of a promotion.

What is not committed does not count: `zdm profile smoke` must not lower the gate for full models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from zdm_ml.params import Params, parse_params
from zdm_ml.pipeline.commands import git
from zdm_ml.registry.gate import Policy


@dataclass(frozen=True)
class ApprovalPolicy:
    """Which profiles need a person's approval, who may give it, and how many hours they have."""

    required: Mapping[str, bool]
    approvers: tuple[str, ...]
    hours: float

    def requires(self, profile: str) -> bool:
        """Tell whether models of `profile` need an approval; those of an unlisted one do."""
        return self.required.get(profile, True)


def policy_for(root: Path, profile: str) -> Policy:
    """Return the gate's limits for a model of `profile`."""
    params = committed_params(root)
    promote = params.promote
    return Policy(
        # A profile without a floor has no business in production.
        floor=promote.floors.get(profile, 1.0),
        perturbation_floor=promote.perturbation_floors.get(profile, 1.0),
        min_castings=promote.min_castings.get(profile, max(promote.min_castings.values())),
        escape_margin=promote.escape_margins.get(profile, min(promote.escape_margins.values())),
        slice_margin=promote.slice_margin,
        cost_tolerance=promote.cost_tolerance,
        cost=params.cost,
        promise=params.verdict,
        confidence=params.evaluate.confidence,
        resamples=params.evaluate.resamples,
    )


def approval_policy(root: Path) -> ApprovalPolicy:
    """Return who must approve what."""
    promote = committed_params(root).promote
    return ApprovalPolicy(
        promote.require_approval, tuple(promote.approvers), promote.approval_hours
    )


def committed_params(root: Path) -> Params:
    """Return params.yaml as committed in the checkout."""
    return parse_params(yaml.safe_load(git(root, "show", "HEAD:params.yaml")), "params.yaml")
