"""Which of the trained models is put forward, and why each of the others is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from zdm_ml.errors import DataError
from zdm_ml.evaluation.comparison import Comparison
from zdm_ml.evaluation.lead import Candidate, Policy, beyond, lead_of

Compare = Callable[[str], Sequence[Comparison]]
"""Give a model's name, get every other model's comparison with it."""


@dataclass(frozen=True)
class Selection:
    """The winner, whether the run may register it, and one row per model asked for.

    A row has model_name, rank (None where the model failed) and reason. `reference` is the model
    of lowest expected cost within the limits; `comparisons` hold every other one beside it.
    """

    winner: str | None
    eligible: bool
    reason: str
    rows: list[dict[str, Any]]
    reference: str | None
    policy: str
    comparisons: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return what selection.json says."""
        return asdict(self)


def select(
    candidates: Sequence[Candidate],
    *,
    policy: Policy,
    compare: Compare,
    seeds: Mapping[str, Sequence[float]] | None = None,
    failures: Mapping[str, str] | None = None,
    requested: Sequence[str] = (),
) -> Selection:
    """Choose by policy among the models within takt and size.

    The reference has the lowest expected cost (ties: the cheaper one) unless `seeds`, the costs of
    several trainings of the leaders, make its lead doubtful. Under `cheapest_not_worse`
    the cheapest model that is shown non-inferior to it takes its place. `failures` gives the
    message of each model that failed; a name in `requested` that is neither a candidate nor a
    failure counts as not evaluated. With fewer than `min_models` candidates, or none within the
    limits, the selection is not eligible. Candidates judged on different numbers of images or
    castings, leaky ones beside honest ones, or one named twice, raise `DataError`.
    """
    _check(candidates)
    names = {candidate.model_name for candidate in candidates}
    missing = {name: "it was not evaluated" for name in requested if name not in names}
    failed = {**missing, **{k: v for k, v in (failures or {}).items() if k not in names}}
    by_cost = sorted(candidates, key=lambda each: (each.cost, *each.expense))
    lead = lead_of(candidates, policy, seeds or {})
    reference = lead.reference if lead else None
    found = compare(reference.model_name) if reference else ()
    comparisons = {each.model_name: each for each in found}
    contest = _Contest(policy, by_cost, reference, comparisons, lead.doubt if lead else "")
    winner = contest.winner
    ranked = sorted(by_cost, key=lambda each: (each is not winner, bool(beyond(each, policy))))
    rows = [
        {"rank": rank, "model_name": each.model_name, "reason": contest.reason(each)}
        for rank, each in enumerate(ranked, start=1)
    ]
    rows += [
        {"rank": None, "model_name": name, "reason": f"not ranked: {message}"}
        for name, message in sorted(failed.items())
    ]
    eligible = len(ranked) >= policy.min_models and winner is not None
    return Selection(
        winner=winner.model_name if winner else None,
        eligible=eligible,
        reason=_verdict(contest, failed, eligible),
        rows=rows,
        reference=reference.model_name if reference else None,
        policy=policy.name,
        comparisons=[asdict(each) for each in found],
    )


@dataclass(frozen=True)
class _Contest:
    """Candidates by cost, the reference among them, and how the others compare with it."""

    policy: Policy
    candidates: Sequence[Candidate]
    reference: Candidate | None
    comparisons: Mapping[str, Comparison]
    doubt: str

    @cached_property
    def winner(self) -> Candidate | None:
        """Return the reference, or the cheapest model that may take its place."""
        best = self.reference
        if best is None or self.policy.name == "lowest_cost":
            return best
        heirs = [each for each in self.candidates if self._shown(each) and self._cheaper(each)]
        heirs = [each for each in heirs if not beyond(each, self.policy)]
        return min([best, *heirs], key=lambda each: each.expense)

    def reason(self, candidate: Candidate) -> str:
        """Say in a sentence why a model won or not."""
        best, winner = self.reference, self.winner
        limit = beyond(candidate, self.policy)
        if best is None or limit:
            return f"is out of the contest: {limit}"
        if candidate is winner:
            return self._why_winner(candidate, best)
        if candidate is best and winner is not None:
            return (
                f"{self._standing}, {self._errors(best)}, but {winner.model_name} is"
                f" shown not to be worse and takes {winner.p50_ms:.3g} ms instead of"
                f" {best.p50_ms:.3g} ms"
            )
        more = (
            f"costs {candidate.cost - best.cost:,.0f} {self.policy.currency} more than"
            f" {best.model_name}: {self._errors(candidate)}"
            if candidate.cost > best.cost
            else f"costs {best.cost - candidate.cost:,.0f} {self.policy.currency} less than"
            f" {best.model_name}, but {self.doubt}"
            if candidate.cost < best.cost
            else f"costs the same as {best.model_name}"
        )
        return more + self._why_not_instead(candidate, best)

    @property
    def _standing(self) -> str:
        return f"is the reference, {self.doubt}" if self.doubt else "has the lowest expected cost"

    def _why_winner(self, winner: Candidate, best: Candidate) -> str:
        if winner is not best:
            found = self.comparisons[winner.model_name]
            return (
                f"is the cheapest model shown not to be worse than {best.model_name}:"
                f" {winner.p50_ms:.3g} ms against {best.p50_ms:.3g} ms;"
                f" {_bounds(found, self.policy)}; {self._errors(winner)}"
            )
        what = f"{self._standing}{';' if self.doubt else ','} {self._errors(best)}"
        tied = [e.model_name for e in self.candidates if e.cost == best.cost and e is not best]
        if tied:
            what += f", and is the cheapest of those tied ({', '.join(tied)})"
        cheaper = [each for each in self.candidates if self._cheaper(each)]
        if cheaper and self.policy.name != "lowest_cost":
            what += "; no cheaper model is shown to be as good"
        return what

    def _why_not_instead(self, candidate: Candidate, best: Candidate) -> str:
        if not self._cheaper(candidate):
            return f"; takes {candidate.p50_ms:.3g} ms against {best.p50_ms:.3g} ms"
        found = self.comparisons[candidate.model_name]
        if found.non_inferior and self.policy.name == "lowest_cost":
            return "; shown not to be worse, but the policy takes the lowest cost"
        if found.non_inferior:
            return "; shown not to be worse, but not the cheapest such model"
        return f"; cheaper, but not shown to be as good: {_shortfall(found, self.policy)}"

    def _shown(self, candidate: Candidate) -> bool:
        found = self.comparisons.get(candidate.model_name)
        return found is not None and found.non_inferior

    def _cheaper(self, candidate: Candidate) -> bool:
        return self.reference is not None and candidate.expense < self.reference.expense

    def _errors(self, candidate: Candidate) -> str:
        return (
            f"{candidate.cost:,.0f} {self.policy.currency} per 10,000 parts"
            f" ({_count(candidate.escapes, 'escape')}, {_count(candidate.overkills, 'overkill')}"
            f" of {candidate.images} images; {_count(candidate.escapes_castings, 'escape')},"
            f" {_count(candidate.overkills_castings, 'overkill')} of {candidate.castings} castings"
            f"{', LEAKY' if candidate.leaky else ''})"
        )


def _bounds(found: Comparison, policy: Policy) -> str:
    return (
        f"escape rate at most {_points(found.escape_excess_upper)} and overkill rate at most"
        f" {_points(found.overkill_excess_upper)} higher, cost at most"
        f" {found.cost_difference_high:,.0f} {policy.currency} higher"
    )


def _shortfall(found: Comparison, policy: Policy) -> str:
    missing = [
        f"{count} more {kind} castings"
        for count, kind in ((found.defective_missing, "defective"), (found.good_missing, "good"))
        if count
    ]
    if missing:
        return f"undecidable, {' and '.join(missing)} are needed"
    return (
        f"it may cost {found.cost_difference_high:,.0f} {policy.currency} more, the margin is"
        f" {policy.cost_margin:,.0f}"
    )


def _points(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2g} points"


def _verdict(contest: _Contest, failed: Mapping[str, str], eligible: bool) -> str:
    ranked = contest.candidates
    total = len(ranked) + len(failed)
    missing = f"; missing: {', '.join(sorted(failed))}" if failed else ""
    counts = f"{len(ranked)} of {total} models were evaluated{missing}"
    winner = contest.winner
    if winner is not None and eligible:
        return f"{winner.model_name} {contest.reason(winner)}; {counts}"
    if winner is None and ranked:
        return f"no model may be registered: none keeps takt and size limits; {counts}"
    least = max(contest.policy.min_models, 1)
    return f"no model may be registered: {counts}, at least {least} must be"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _check(candidates: Sequence[Candidate]) -> None:
    names = [candidate.model_name for candidate in candidates]
    if len(set(names)) < len(names):
        raise DataError(f"a model is a candidate twice: {', '.join(sorted(names))}")
    if len({(candidate.images, candidate.castings) for candidate in candidates}) > 1:
        counts = ", ".join(
            f"{each.model_name} {each.images} images of {each.castings} castings"
            for each in candidates
        )
        raise DataError(
            f"the models were judged on different test sets ({counts})",
            hint="run `dvc repro` so that every model is evaluated on the same split",
        )
    leaky = [candidate.model_name for candidate in candidates if candidate.leaky]
    if leaky and len(leaky) < len(candidates):
        raise DataError(
            f"leaky and honest figures cannot be compared (leaky: {', '.join(sorted(leaky))})",
            hint="run `dvc repro` so that every model is evaluated on the same split",
        )
