"""Which of the trained models is put forward, and why each of the others is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zdm_ml.errors import DataError


@dataclass(frozen=True)
class Candidate:
    """One evaluated model; errors and cost are on the test images at `threshold`.

    `castings` and the errors `*_castings` count what the images show; `leaky` figures are of
    castings that were also trained on.
    """

    model_name: str
    escapes: int
    overkills: int
    images: int
    cost: float
    flops: int
    accuracy: float
    balanced_accuracy: float
    threshold: float
    init: str
    profile: str
    castings: int
    escapes_castings: int
    overkills_castings: int
    leaky: bool


@dataclass(frozen=True)
class Selection:
    """The best model, whether the run may register it, and one row per model asked for.

    A row has model_name, rank (None where the model failed) and reason.
    """

    winner: str | None
    eligible: bool
    reason: str
    rows: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return what selection.json says."""
        return asdict(self)


def select(
    candidates: Sequence[Candidate],
    *,
    min_models: int,
    failures: Mapping[str, str] | None = None,
    requested: Sequence[str] = (),
) -> Selection:
    """Rank by cost, then FLOPs (fewer first), then name; the first wins.

    `failures` gives the message of each model that failed; a name in `requested` that is neither
    a candidate nor a failure counts as not evaluated. With fewer than `min_models` candidates the
    selection is not eligible. Candidates judged on different numbers of images or castings, leaky
    ones beside honest ones, or one named twice, raise `DataError`.
    """
    _check(candidates)
    names = {candidate.model_name for candidate in candidates}
    missing = {name: "it was not evaluated" for name in requested if name not in names}
    failed = {**missing, **{k: v for k, v in (failures or {}).items() if k not in names}}
    ranked = sorted(candidates, key=lambda each: (each.cost, each.flops, each.model_name))
    rows = [
        {"rank": rank, "model_name": each.model_name, "reason": _reason(each, ranked)}
        for rank, each in enumerate(ranked, start=1)
    ]
    rows += [
        {"rank": None, "model_name": name, "reason": f"not ranked: {message}"}
        for name, message in sorted(failed.items())
    ]
    eligible = len(ranked) >= min_models and bool(ranked)
    winner = ranked[0].model_name if ranked else None
    return Selection(winner, eligible, _verdict(ranked, failed, min_models, eligible), rows)


def _verdict(
    ranked: Sequence[Candidate], failed: Mapping[str, str], min_models: int, eligible: bool
) -> str:
    total = len(ranked) + len(failed)
    missing = f"; missing: {', '.join(sorted(failed))}" if failed else ""
    counts = f"{len(ranked)} of {total} models were evaluated{missing}"
    if not eligible:
        return f"no model may be registered: {counts}, at least {max(min_models, 1)} must be"
    return f"{ranked[0].model_name} {_reason(ranked[0], ranked)}; {counts}"


def _reason(candidate: Candidate, ranked: Sequence[Candidate]) -> str:
    best = ranked[0]
    if candidate is best:
        tied = [each for each in ranked[1:] if each.cost == best.cost]
        what = f"has the lowest weighted cost, {_errors(best)}"
        if not tied:
            return what
        rivals = ", ".join(each.model_name for each in tied)
        return f"{what}, and is the cheapest of those tied ({rivals}) at {_gflops(best)}"
    if candidate.cost > best.cost:
        more = candidate.cost - best.cost
        return f"costs {more:.4g} more than {best.model_name}: {_errors(candidate)}"
    if candidate.flops > best.flops:
        return (
            f"costs the same as {best.model_name} but needs {_gflops(candidate)}"
            f" against {_gflops(best)}"
        )
    return f"equals {best.model_name} in cost and FLOPs and comes after it by name"


def _errors(candidate: Candidate) -> str:
    return (
        f"{candidate.cost:.4g} ({_count(candidate.escapes, 'escape')},"
        f" {_count(candidate.overkills, 'overkill')} of {candidate.images} images;"
        f" {_count(candidate.escapes_castings, 'escape')},"
        f" {_count(candidate.overkills_castings, 'overkill')} of {candidate.castings} castings"
        f"{', LEAKY' if candidate.leaky else ''})"
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _gflops(candidate: Candidate) -> str:
    return f"{candidate.flops / 1e9:.3g} GFLOPs"


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
