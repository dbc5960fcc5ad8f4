"""Two models on the same castings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from money import COST

from zdm_ml.errors import DataError
from zdm_ml.evaluation.bounds import castings_missing, upper_bound
from zdm_ml.evaluation.comparison import Comparison, Judged, Margins, compare, holm, judged
from zdm_ml.evaluation.cost import expected_cost
from zdm_ml.evaluation.verdicts import Verdicts

HALF = Verdicts(0.5, 0.5)
MARGINS = Margins(
    escape_rate=0.05, overkill_rate=0.1, cost=500.0, confidence=0.95, resamples=500, seed=0
)


def model(defective: int, good: int, escapes: Any = (), overkills: Any = ()) -> Judged:
    """Return verdicts on castings of one image each; the numbered ones are wrong."""
    scores = np.array(
        [0.1 if at in escapes else 0.9 for at in range(defective)]
        + [0.9 if at in overkills else 0.1 for at in range(good)]
    )
    targets = np.array([1] * defective + [0] * good)
    parts = [f"d{at:04}" for at in range(defective)] + [f"g{at:04}" for at in range(good)]
    return judged(scores, targets, parts, HALF, COST)


def compared(small: Judged, best: Judged, margins: Margins = MARGINS) -> Comparison:
    (found,) = compare(("best", best), [("small", small)], margins)
    return found


def test_money_of_castings_adds_up_to_the_expected_cost() -> None:
    rng = np.random.default_rng(0)
    scores, targets = rng.uniform(size=60), np.array([1] * 40 + [0] * 20)
    parts = [f"{target}-{at % 7}" for at, target in enumerate(targets)]
    verdicts = Verdicts(0.3, 0.6)

    found = judged(scores, targets, parts, verdicts, COST)

    defective = found.castings.defective
    total = found.money[defective].mean() + found.money[~defective].mean()
    assert total == pytest.approx(expected_cost(COST, verdicts.rates(scores, targets, parts)))


def test_half_of_its_images_make_a_casting_wrong() -> None:
    found = judged(
        np.array([0.1, 0.9, 0.1, 0.9, 0.9]), np.ones(5, dtype=np.int64), [*"aabbb"], HALF, COST
    )

    assert found.escaped.tolist() == [True, False]


def test_a_model_in_review_neither_escapes_nor_is_rejected() -> None:
    found = judged(np.array([0.5, 0.5]), np.array([1, 0]), ["a", "b"], Verdicts(0.4, 0.6), COST)

    assert not found.escaped.any() and not found.rejected.any()
    assert found.money.tolist() == [10_000 * 0.1 * 2, 10_000 * 0.9 * 2]


def test_the_same_verdicts_on_many_castings_are_shown_not_to_be_worse() -> None:
    found = compared(model(100, 60), model(100, 60))

    assert found.non_inferior
    assert (found.defective_missing, found.good_missing) == (0, 0)
    assert found.escape_excess_upper == upper_bound(0, 100, 0.95)
    assert (found.p_value, found.cost_difference) == (1.0, 0.0)


def test_the_same_verdicts_on_few_castings_are_undecidable() -> None:
    found = compared(model(16, 2), model(16, 2))

    assert not found.non_inferior
    assert (found.defective_missing, found.good_missing) == (59 - 16, 29 - 2)


def test_a_worse_model_is_not_shown_to_be_as_good_however_many_castings() -> None:
    found = compared(model(400, 200, escapes=range(40)), model(400, 200))

    assert not found.non_inferior
    assert found.p_value < 1e-6
    assert found.cost_difference == pytest.approx(10_000 * 0.1 * 0.1 * 100)
    assert found.cost_difference_low < found.cost_difference < found.cost_difference_high


def test_a_better_model_is_not_worse() -> None:
    found = compared(model(200, 100), model(200, 100, escapes=range(20), overkills=range(10)))

    assert found.non_inferior
    assert found.cost_difference_high < 0
    assert (found.wrong_only, found.wrong_only_reference) == (0, 30)


def test_cost_alone_can_stand_against_a_model() -> None:
    margins = Margins(0.2, 0.2, 10.0, 0.95, 500, 0)

    found = compared(model(300, 150, overkills=range(9)), model(300, 150), margins)

    assert (found.defective_missing, found.good_missing) == (0, 0)
    assert found.cost_difference_high > 10
    assert not found.non_inferior


def test_p_values_are_held_against_the_family() -> None:
    best = model(50, 20)
    others = [("a", model(50, 20, escapes=range(6))), ("b", model(50, 20, escapes=range(7)))]

    first, second = compare(("best", best), others, MARGINS)

    assert first.p_value == pytest.approx(2 * 0.5**6)
    assert (first.p_holm, second.p_holm) == (pytest.approx(first.p_value), 2 * second.p_value)


def test_no_comparison_needs_no_correction() -> None:
    assert holm([]) == []
    assert compare(("best", model(3, 3)), [], MARGINS) == []


def test_other_castings_are_refused() -> None:
    with pytest.raises(DataError, match="small and best were judged on different castings"):
        compared(model(3, 3), model(3, 4))


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(0, 80), st.sampled_from([0.02, 0.1, 0.3]))
def test_missing_castings_are_just_enough(cases: int, total: int, margin: float) -> None:
    total = max(cases, total)

    more = castings_missing(cases, total, margin, 0.95)

    assert (upper_bound(cases, total + more, 0.95) or 1) <= margin
    if more:
        assert (upper_bound(cases, total + more - 1, 0.95) or 1) > margin


def test_non_inferiority_is_rarely_shown_of_a_model_that_is_worse_by_the_margin() -> None:
    """A model that lets 5 % more of 200 castings escape: shown as good in about 5 % at most."""
    rng = np.random.default_rng(5)
    best, shown = model(200, 50), 0
    for _ in range(200):
        escapes = np.flatnonzero(rng.uniform(size=200) < MARGINS.escape_rate)
        shown += compared(
            model(200, 50, escapes=set(escapes.tolist())),
            best,
            Margins(0.05, 0.1, np.inf, 0.95, 100, 0),
        ).non_inferior

    assert shown < 20
