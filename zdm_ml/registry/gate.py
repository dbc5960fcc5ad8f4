"""The promotion gate: figures of challenger and champion in, checks and a verdict out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zdm_ml.data.manifest import Row
from zdm_ml.evaluation.bounds import castings_needed
from zdm_ml.evaluation.comparison import Comparison, Judged, Margins, compare, judged
from zdm_ml.evaluation.metrics import Scores, Targets
from zdm_ml.evaluation.verdicts import Flags, Verdicts
from zdm_ml.params import CostParams, VerdictParams
from zdm_ml.registry.decision import Check, check, unmet

LEAK = "split_not_leaky"


@dataclass(frozen=True)
class Policy:
    """The gate's limits for the challenger's profile; `min_castings` holds per class.

    `floor` and `perturbation_floor` are balanced accuracies, `cost_tolerance` is money per 10,000
    parts, margins are shares of castings.
    """

    floor: float
    perturbation_floor: float
    min_castings: int
    escape_margin: float
    slice_margin: float
    cost_tolerance: float
    cost: CostParams
    promise: VerdictParams
    confidence: float
    resamples: int

    def margins(self) -> Margins:
        """Return what a challenger may be worse by; overkills count through the cost alone."""
        return Margins(self.escape_margin, 1.0, np.inf, self.confidence, self.resamples, seed=0)


@dataclass(frozen=True)
class Side:
    """One model's verdicts on the shared castings; `balanced_accuracy` is by image."""

    judged: Judged
    balanced_accuracy: float


@dataclass(frozen=True)
class Evidence:
    """Both models on the same images, which show castings that neither trained on.

    `slices` names kinds of castings, such as those in one lighting or with one kind of defect,
    and tells for each casting [P] whether it is one.
    """

    images: int
    challenger: Side
    champion: Side | None
    slices: Mapping[str, Flags]

    @property
    def defective(self) -> int:
        """Count the defective castings."""
        return int(self.challenger.judged.castings.defective.sum())

    @property
    def good(self) -> int:
        """Count the good castings."""
        return len(self.challenger.judged.castings.parts) - self.defective


def measure(
    scores: Scores, targets: Targets, parts: Sequence[str], verdicts: Verdicts, cost: CostParams
) -> Side:
    """Judge `scores` [N], P(defect), against `targets` [N], 1 for a defect, of castings `parts`.

    Balanced accuracy is the mean of the two classes' shares of right verdicts, of which `review`
    is none; it is 0 while a class has no image, which `min_castings` refuses anyway.
    """
    defect = targets == 1
    right = np.where(defect, scores >= verdicts.defect_from, scores < verdicts.ok_below)
    shares = [float(right[members].mean()) for members in (defect, ~defect) if members.any()]
    balanced = sum(shares) / 2 if len(shares) == 2 else 0.0
    return Side(judged(scores, targets, parts, verdicts, cost), balanced)


def slices_of(rows: Sequence[Row], parts: Sequence[str]) -> dict[str, Flags]:
    """Tell of each casting of `parts` [P] its lighting, and its kinds of defect where known.

    The lighting is the one that most images of a casting show.
    """
    lightings: dict[str, Counter[str]] = {}
    slices: dict[str, set[str]] = {}
    for row in rows:
        lightings.setdefault(row.part, Counter())[row.lighting or "unnamed"] += 1
        for kind in filter(None, row.kinds.split(";")):
            slices.setdefault(f"defect kind {kind}", set()).add(row.part)
    for part, counts in lightings.items():
        slices.setdefault(f"lighting {counts.most_common(1)[0][0]}", set()).add(part)
    return {name: np.array([part in members for part in parts]) for name, members in slices.items()}


def judge(evidence: Evidence, policy: Policy) -> list[Check]:
    """Return the checks on the figures; without a champion only floors and evidence count."""
    challenger, champion = evidence.challenger, evidence.champion
    checks = [
        _enough("castings_ok", evidence.good, policy.min_castings),
        _enough("castings_defect", evidence.defective, policy.min_castings),
        check(
            "balanced_accuracy",
            challenger.balanced_accuracy >= policy.floor,
            challenger.balanced_accuracy,
            policy.floor,
        ),
    ]
    if champion is None or any(item.state == "broken" for item in checks):
        return checks
    pair = (("champion", champion.judged), [("challenger", challenger.judged)])
    (found,) = compare(*pair, policy.margins())
    return [
        *checks,
        _escapes(found, evidence, policy),
        check(
            "cost",
            found.cost_difference <= policy.cost_tolerance + 1e-6,
            found.cost_difference,
            policy.cost_tolerance,
        ),
        _slices(evidence, policy),
    ]


def _escapes(found: Comparison, evidence: Evidence, policy: Policy) -> Check:
    """Check that the escape rate is shown not to exceed the champion's by the margin or more.

    Castings so few that not even a challenger without an error could show it are broken evidence.
    """
    upper, margin = found.escape_excess_upper, policy.escape_margin
    if upper is not None and upper <= margin:
        return Check("escapes", "passed", upper, margin)
    needed = castings_needed(margin, policy.confidence) if margin < 1 else 1
    if evidence.defective < needed:
        said = f"{upper:.4g}, {needed - evidence.defective} more defective castings"
        return Check("escapes", "broken", said, margin)
    return Check("escapes", "failed", upper, margin)


def _slices(evidence: Evidence, policy: Policy) -> Check:
    """Check that in no slice the challenger lets clearly more defective castings escape.

    By what was seen, without a bound: slices hold too few castings for one.
    """
    champion = evidence.champion.judged if evidence.champion else evidence.challenger.judged
    mine, defective = evidence.challenger.judged, champion.castings.defective
    worst, where = 0.0, ""
    for name, inside in sorted(evidence.slices.items()):
        members = inside & defective
        if not members.any():
            continue
        excess = float(mine.escaped[members].mean() - champion.escaped[members].mean())
        if excess > worst:
            worst, where = excess, f"{name} ({int(members.sum())} defective castings)"
    said = f"{worst:.3f} in {where}" if worst else "none worse"
    return check("slices", worst <= policy.slice_margin, said, policy.slice_margin)


def perturbation_check(metrics: Mapping[str, Any], floor: float) -> Check:
    """Check the worst balanced accuracy under changes of light, camera and pose."""
    worst = (metrics.get("robustness") or {}).get("worst") or {}
    value = worst.get("balanced_accuracy")
    if not isinstance(value, int | float):
        return Check("worst_perturbation", "broken", "the figures do not say", floor)
    return check("worst_perturbation", value >= floor, float(value), floor)


def latency_check(milliseconds: float, takt_seconds: float) -> Check:
    """Check that a verdict is there within the line's takt."""
    limit = 1000 * takt_seconds
    return check("latency_ms", milliseconds <= limit, milliseconds, limit)


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
