"""The promotion gate: figures of challenger and champion in, checks and a verdict out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from zdm_ml.registry.decision import Check, check, unmet

LEAK = "split_not_leaky"


@dataclass(frozen=True)
class Policy:
    """The gate's limits; `floor` is the balanced accuracy that the challenger's profile needs.

    `min_castings` holds per class; an overkill costs `overkill_weight` of an escape.
    """

    floor: float
    min_castings: int
    cost_tolerance: float
    overkill_weight: float


@dataclass(frozen=True)
class Side:
    """One model's verdicts on the shared images, at its own threshold."""

    profile: str
    escapes: int
    overkills: int
    balanced_accuracy: float
    cost_per_image: float


@dataclass(frozen=True)
class Evidence:
    """Both models on the same images; castings are physical parts that neither trained on."""

    images: int
    castings_ok: int
    castings_defect: int
    challenger: Side
    champion: Side | None


def measure(
    profile: str,
    scores: Sequence[float] | np.ndarray,
    targets: Sequence[int] | np.ndarray,
    threshold: float,
    overkill_weight: float,
) -> Side:
    """Judge `scores` [N], P(defect), against `targets` [N], 1 for a defect.

    Balanced accuracy is the mean of the two classes' shares of right verdicts; it is 0 while a
    class has no image, which `min_castings` refuses anyway.
    """
    defect = np.asarray(targets) == 1
    rejected = np.asarray(scores) >= threshold
    escapes, overkills = int((defect & ~rejected).sum()), int((~defect & rejected).sum())
    defects, good = int(defect.sum()), int((~defect).sum())
    balanced = (2 - escapes / defects - overkills / good) / 2 if defects and good else 0.0
    cost = (escapes + overkill_weight * overkills) / max(1, defects + good)
    return Side(profile, escapes, overkills, balanced, cost)


def judge(evidence: Evidence, policy: Policy) -> list[Check]:
    """Return the checks on the figures; without a champion only floors and evidence count."""
    challenger, champion = evidence.challenger, evidence.champion
    checks = [
        _enough("castings_ok", evidence.castings_ok, policy.min_castings),
        _enough("castings_defect", evidence.castings_defect, policy.min_castings),
        check(
            "balanced_accuracy",
            challenger.balanced_accuracy >= policy.floor,
            challenger.balanced_accuracy,
            policy.floor,
        ),
    ]
    if champion is None:
        return checks
    allowed = champion.cost_per_image + policy.cost_tolerance
    return [
        *checks,
        check(
            "escapes",
            challenger.escapes <= champion.escapes,
            challenger.escapes,
            champion.escapes,
        ),
        # The sum of equal terms may differ in its last bit.
        check(
            "cost_per_image",
            challenger.cost_per_image <= allowed + 1e-12,
            challenger.cost_per_image,
            allowed,
        ),
    ]


def profile_check(challenger: str, champion: str | None) -> Check:
    """A demo (profile quick or smoke) never replaces a model of profile full."""
    allowed = champion != "full" or challenger == "full"
    return check("profile", allowed, challenger, champion)


def leak_check(profile: str, says: object, shared_castings: int) -> Check:
    """A model of profile full whose figures leak is never promoted; a demo is, and says so.

    `says` is what its figures state of `leaky`; anything but true or false is broken evidence for
    a full model. `shared_castings` counts test castings that the model was trained on: they
    contradict a `false`.
    """
    leaky = says is True or shared_castings > 0
    if profile != "full":
        value = "leaky demo" if leaky else "no leak known"
        return Check(LEAK, "passed", value)
    if leaky:
        value = f"leaky, {shared_castings} test castings were trained on"
        return Check(LEAK, "failed", value, "no leak")
    if says is not False:
        return Check(LEAK, "broken", "the figures do not say whether the split leaks", "no leak")
    return Check(LEAK, "passed", "no leak", "no leak")


def explain(checks: Iterable[Check]) -> str:
    """Return why the gate says no, in one line; empty when every check passed."""
    return "; ".join(_sentence(item) for item in unmet(checks))


def _enough(name: str, found: int, needed: int) -> Check:
    return Check(name, "passed" if found >= needed else "broken", found, needed)


def _sentence(item: Check) -> str:
    value, limit = _short(item.value), _short(item.limit)
    if item.state == "broken":
        return f"{item.name}: broken evidence, {value}" + (f", needed {limit}" if limit else "")
    return f"{item.name}: {value}" + (f", limit {limit}" if limit else "")


def _short(value: float | int | str | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
