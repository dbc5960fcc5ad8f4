"""Two models on the same castings: is one better, is the cheaper one shown to be as good?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zdm_ml.errors import DataError
from zdm_ml.evaluation.bootstrap import resampled_weights
from zdm_ml.evaluation.bounds import castings_missing, upper_bound
from zdm_ml.evaluation.castings import Castings, Floats, group
from zdm_ml.evaluation.cost import PARTS
from zdm_ml.evaluation.metrics import Scores, Targets
from zdm_ml.evaluation.thresholds import image_weights
from zdm_ml.evaluation.verdicts import Verdicts
from zdm_ml.params import CostParams

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """One model's verdicts on P test castings, sorted by part.

    `escaped` and `rejected` tell which castings had at least half of their images passed though
    defective, or rejected though good; `money` is each casting's expected cost, such that its mean
    over a class is that class' share of the cost per `PARTS` parts.
    """

    castings: Castings
    escaped: Flags
    rejected: Flags
    money: Floats


@dataclass(frozen=True)
class Comparison:
    """A model beside the reference; rates and bounds by casting, money per 10,000 parts.

    `escapes_only` counts castings that the model passes and the reference does not,
    `escapes_only_reference` the other way round; `p_value` is McNemar's on castings judged wrong,
    `p_holm` the same held against all comparisons of the family. `escape_excess_upper` bounds from
    above by how much the model's escape rate exceeds the reference's, `overkill_excess_upper`
    likewise; the `*_missing` are how many more castings of a class, judged alike by both, would
    show that its margin is kept.
    """

    model_name: str
    reference: str
    escapes_only: int
    escapes_only_reference: int
    wrong_only: int
    wrong_only_reference: int
    p_value: float
    p_holm: float
    escape_excess_upper: float | None
    overkill_excess_upper: float | None
    cost_difference: float
    cost_difference_low: float
    cost_difference_high: float
    defective_missing: int
    good_missing: int
    non_inferior: bool


@dataclass(frozen=True)
class Margins:
    """What counts as not worse: by how much rates and cost may be higher, at most."""

    escape_rate: float
    overkill_rate: float
    cost: float
    confidence: float
    resamples: int
    seed: int


def judged(
    scores: Scores, targets: Targets, parts: Sequence[str], verdicts: Verdicts, cost: CostParams
) -> Judged:
    """Return what `verdicts` do to each casting of images [N] with P(defect) `scores`."""
    castings, defect = group(targets, parts), targets == 1
    passed, rejected = scores < verdicts.ok_below, scores >= verdicts.defect_from
    reviewed = ~passed & ~rejected
    price = np.where(
        defect,
        cost.prevalence * (cost.escape * passed + cost.review * reviewed),
        (1 - cost.prevalence) * (cost.overkill * rejected + cost.review * reviewed),
    )
    return Judged(
        castings=castings,
        escaped=_half(castings, passed & defect) & castings.defective,
        rejected=_half(castings, rejected & ~defect) & ~castings.defective,
        money=PARTS * castings.sums(price * image_weights(targets, parts)),
    )


def compare(
    reference: tuple[str, Judged], others: Sequence[tuple[str, Judged]], margins: Margins
) -> list[Comparison]:
    """Compare each model with the reference on the castings that all of them judged.

    The p-values are exact (McNemar, Psychometrika 12, 1947), and Holm's (Scand. J. Stat. 6, 1979)
    over `others`. Cost differences come with percentile intervals of a bootstrap over castings.
    Models that judged other castings raise `DataError`.
    """
    name, best = reference
    for other, found in others:
        if found.castings.parts != best.castings.parts:
            raise DataError(
                f"{other} and {name} were judged on different castings",
                hint="run `dvc repro` so that every model is evaluated on the same split",
            )
    p_values = [_mcnemar(*_wrong_only(found, best)) for _, found in others]
    adjusted = holm(p_values)
    drawn = resampled_weights(best.castings, margins.resamples, margins.seed)
    return [
        _compared(other, found, name, best, margins, drawn, p_value, p_holm)
        for (other, found), p_value, p_holm in zip(others, p_values, adjusted, strict=True)
    ]


def _compared(
    model_name: str,
    found: Judged,
    reference: str,
    best: Judged,
    margins: Margins,
    drawn: Floats,
    p_value: float,
    p_holm: float,
) -> Comparison:
    defective = int(best.castings.defective.sum())
    good = len(best.castings.parts) - defective
    escapes, overkills = (
        _Excess(int((mine & ~its).sum()), int((its & ~mine).sum()), total, margin, margins)
        for mine, its, total, margin in (
            (found.escaped, best.escaped, defective, margins.escape_rate),
            (found.rejected, best.rejected, good, margins.overkill_rate),
        )
    )
    low, difference, high = _money(found, best, drawn, margins.confidence)
    wrong, wrong_reference = _wrong_only(found, best)
    return Comparison(
        model_name=model_name,
        reference=reference,
        escapes_only=escapes.only,
        escapes_only_reference=escapes.only_reference,
        wrong_only=wrong,
        wrong_only_reference=wrong_reference,
        p_value=p_value,
        p_holm=p_holm,
        escape_excess_upper=escapes.upper,
        overkill_excess_upper=overkills.upper,
        cost_difference=difference,
        cost_difference_low=low,
        cost_difference_high=high,
        defective_missing=escapes.missing,
        good_missing=overkills.missing,
        non_inferior=not escapes.missing and not overkills.missing and high <= margins.cost,
    )


@dataclass(frozen=True)
class _Excess:
    """Castings of a class that one model alone judges wrong, and what that proves.

    A rate's excess is at most the rate of castings that the model alone judges wrong, of which the
    bound is exact.
    """

    only: int
    only_reference: int
    total: int
    margin: float
    margins: Margins

    @property
    def upper(self) -> float | None:
        return upper_bound(self.only, self.total, self.margins.confidence)

    @property
    def missing(self) -> int:
        return castings_missing(self.only, self.total, self.margin, self.margins.confidence)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values held against the whole family of comparisons."""
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(value) for value in multipletests(list(p_values), method="holm")[1]]


def _mcnemar(only: int, only_reference: int) -> float:
    if only + only_reference == 0:
        return 1.0
    from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar([[0, only], [only_reference, 0]], exact=True).pvalue)


def _wrong_only(found: Judged, best: Judged) -> tuple[int, int]:
    wrong, wrong_best = found.escaped | found.rejected, best.escaped | best.rejected
    return int((wrong & ~wrong_best).sum()), int((wrong_best & ~wrong).sum())


def _money(
    found: Judged, best: Judged, drawn: Floats, confidence: float
) -> tuple[float, float, float]:
    """Return how much more the model costs, between its bounds: low, estimate, high."""
    more, defective = found.money - best.money, best.castings.defective

    def mean(weights: Floats) -> npt.NDArray[Any]:
        sums = np.zeros(len(weights))
        for stratum in (defective, ~defective):
            if stratum.any():
                sums += weights[:, stratum] @ more[stratum] / int(stratum.sum())
        return sums

    tails = [(1 - confidence), confidence]
    low, high = np.quantile(mean(drawn), tails)
    (estimate,) = mean(np.ones((1, len(more))))
    # Rounded far below any difference that matters: last digits vary from machine to machine.
    return round(float(low), 6), round(float(estimate), 6), round(float(high), 6)


def _half(castings: Castings, flags: Flags) -> Flags:
    return 2 * castings.sums(flags) >= castings.images
