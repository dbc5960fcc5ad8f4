"""Which of the evaluated models leads, and whether its lead is more than luck."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

PolicyName = Literal["cheapest_not_worse", "lowest_cost"]


@dataclass(frozen=True)
class Policy:
    """How the winner is chosen; `cost_margin` is money per 10,000 parts, sizes are bytes."""

    name: PolicyName
    cost_margin: float
    currency: str
    max_milliseconds: float
    max_bytes: float | None
    min_models: int


@dataclass(frozen=True)
class Candidate:
    """One evaluated model; errors are those of its verdicts on the test images.

    `cost` is expected money per 10,000 parts. `castings` and the errors `*_castings` count what the
    images show; `leaky` figures are of castings that were also trained on.
    """

    model_name: str
    escapes: int
    overkills: int
    images: int
    cost: float
    flops: int
    p50_ms: float
    p99_ms: float
    size_bytes: int
    accuracy: float
    balanced_accuracy: float
    threshold: float
    init: str
    profile: str
    castings: int
    escapes_castings: int
    overkills_castings: int
    leaky: bool

    @property
    def expense(self) -> tuple[float, int, int, str]:
        """Order models by what a decision takes: latency, then FLOPs, size and name."""
        return (self.p50_ms, self.flops, self.size_bytes, self.model_name)


@dataclass(frozen=True)
class Lead:
    """The reference, the runner-up, and what makes the lead doubtful; empty for nothing."""

    reference: Candidate
    second: Candidate | None
    doubt: str


def lead_of(
    candidates: Sequence[Candidate], policy: Policy, seeds: Mapping[str, Sequence[float]]
) -> Lead | None:
    """Return who leads by expected cost among the models within the limits; None without any.

    Where both leaders were trained with several seeds, their mean costs count, and a difference
    not above the standard deviation of one training's difference is no lead: the cheaper model is
    the reference then. Seeds that could not be trained leave the order, and are named as a doubt.
    """
    by_cost = sorted(candidates, key=lambda each: (each.cost, *each.expense))
    within = [each for each in by_cost if not beyond(each, policy)]
    if len(within) < 2:
        return Lead(within[0], None, "") if within else None
    first, second = within[:2]
    mine, its = seeds.get(first.model_name, ()), seeds.get(second.model_name, ())
    if min(len(mine), len(its)) < 2:
        failed = [name for name, costs in seeds.items() if len(costs) < 2]
        doubt = f"with an unknown spread: no other seed of {' and '.join(failed)} could be trained"
        return Lead(first, second, doubt if failed else "")
    spread = math.hypot(statistics.stdev(mine), statistics.stdev(its))
    gain = statistics.fmean(its) - statistics.fmean(mine)
    if gain > spread:
        return Lead(first, second, "")
    doubt = (
        f"over {min(len(mine), len(its))} seeds {first.model_name} and {second.model_name} differ"
        f" by {abs(gain):,.0f} {policy.currency} with a spread of {spread:,.0f}"
    )
    if gain < -spread:
        return Lead(second, first, f"{doubt}: the order is the other way round")
    cheaper = min((first, second), key=lambda each: each.expense)
    return Lead(cheaper, second if cheaper is first else first, f"{doubt}: no lead")


def beyond(candidate: Candidate, policy: Policy) -> str:
    """Return which limit a model exceeds; empty for none."""
    if candidate.p99_ms > policy.max_milliseconds:
        return f"p99 of {candidate.p99_ms:.3g} ms, the takt allows {policy.max_milliseconds:.3g} ms"
    if policy.max_bytes is not None and candidate.size_bytes > policy.max_bytes:
        return f"{candidate.size_bytes / 1e6:.3g} MB, allowed are {policy.max_bytes / 1e6:.3g} MB"
    return ""
