"""Exact bounds by casting: published values, other libraries, and coverage by simulation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from zdm_ml.errors import DataError
from zdm_ml.evaluation.bounds import (
    by_casting,
    castings_needed,
    exact_interval,
    lower_bound,
    upper_bound,
)
from zdm_ml.evaluation.verdicts import Verdicts

COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("cases", "total", "low", "high"),
    [
        # Clopper and Pearson's two-sided 95 % limits as tables print them.
        (0, 10, 0.0, 0.3085),
        (1, 10, 0.0025, 0.4450),
        (5, 10, 0.1871, 0.8129),
        (10, 10, 0.6915, 1.0),
        (2, 20, 0.0123, 0.3170),
        (10, 100, 0.0490, 0.1762),
    ],
)
def test_two_sided_bounds_are_those_of_the_tables(
    cases: int, total: int, low: float, high: float
) -> None:
    assert exact_interval(cases, total, 0.95) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("total", "bound"), [(453, 0.0066), (299, 0.01), (59, 0.0495), (20, 0.1391), (3, 0.6316)]
)
def test_no_case_proves_no_more_than_the_rule_of_three(total: int, bound: float) -> None:
    assert upper_bound(0, total, 0.95) == pytest.approx(bound, abs=5e-5)
    assert lower_bound(total, total, 0.95) == pytest.approx(1 - bound, abs=5e-5)


@settings(deadline=None)  # other programs may hold the CPU
@given(COUNTS, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_bounds_agree_with_scipy_and_statsmodels(counts: tuple[int, int], level: float) -> None:
    cases, total = counts
    scipys = stats.binomtest(cases, total, alternative="less").proportion_ci(level, "exact")

    assert exact_interval(cases, total, level) == pytest.approx(
        proportion_confint(cases, total, alpha=1 - level, method="beta"), abs=1e-9
    )
    assert upper_bound(cases, total, level) == pytest.approx(scipys.high, abs=1e-9)
    assert lower_bound(total - cases, total, level) == pytest.approx(1 - scipys.high, abs=1e-9)


@pytest.mark.parametrize("total", [3, 20, 59])
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.35])
def test_one_sided_bounds_hold_at_least_as_often_as_promised(total: int, rate: float) -> None:
    cases = np.random.default_rng(7).binomial(total, rate, 20_000)
    uppers = np.array([upper_bound(k, total, 0.9) for k in range(total + 1)])
    lowers = np.array([lower_bound(total - k, total, 0.9) for k in range(total + 1)])

    assert (uppers[cases] >= rate).mean() >= 0.895
    assert (lowers[cases] <= 1 - rate).mean() >= 0.895


@pytest.mark.parametrize(("rate", "castings"), [(0.05, 59), (0.01, 299), (0.001, 2995), (0.5, 5)])
def test_castings_needed_for_a_claim_without_an_error(rate: float, castings: int) -> None:
    assert castings_needed(rate, 0.95) == castings


@given(st.floats(1e-4, 0.9), st.floats(0.5, 0.999))
def test_castings_needed_are_enough_and_none_too_many(rate: float, level: float) -> None:
    needed = castings_needed(rate, level)

    bound, fewer = upper_bound(0, needed, level), upper_bound(0, needed - 1, level)
    assert bound is not None and bound <= rate * (1 + 1e-6)
    assert fewer is None or fewer > rate * (1 - 1e-6)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_claim_of_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="max_rate"):
        castings_needed(rate, 0.95)


# Two defective castings (b wrong in half of its images) and two good ones (d wrong in one of 3).
SCORES = np.array([0.9, 0.8, 0.9, 0.1, 0.2, 0.1, 0.9, 0.1])
TARGETS = np.array([1, 1, 1, 1, 0, 0, 0, 0])
PARTS = ["a", "a", "b", "b", "c", "d", "d", "d"]
HALF = Verdicts(0.5, 0.5)


def test_half_of_the_images_wrong_make_a_casting_wrong() -> None:
    figures = by_casting(SCORES, TARGETS, PARTS, HALF, 0.95)

    assert figures["failed"] == [{"part": "b", "label": "defect", "wrong": 1, "images": 2}]
    assert (figures["castings"], figures["defective"], figures["good"]) == (4, 2, 2)
    assert (figures["escapes"], figures["overkills"]) == (1, 0)
    assert (figures["escape_rate"], figures["recall"], figures["accuracy"]) == (0.5, 0.5, 0.75)
    assert "at least half" in figures["aggregation"]


def test_each_rate_has_its_bounds_and_the_one_that_matters() -> None:
    figures = by_casting(SCORES, TARGETS, PARTS, HALF, 0.9)

    assert figures["overkill_rate_upper"] == upper_bound(0, 2, 0.9)
    assert figures["recall_lower"] == lower_bound(1, 2, 0.9)
    assert (figures["accuracy_low"], figures["accuracy_high"]) == exact_interval(3, 4, 0.9)
    assert "accuracy_upper" not in figures and "escape_rate_lower" not in figures


@pytest.mark.parametrize(("target", "missing"), [(0, "escape_rate"), (1, "overkill_rate")])
def test_a_class_without_castings_has_no_rate_and_no_bound(target: int, missing: str) -> None:
    verdicts = Verdicts(0.25, 0.25)
    figures = by_casting(np.array([0.2, 0.3]), np.full(2, target), ["a", "b"], verdicts, 0.95)

    assert [figures[f"{missing}{end}"] for end in ("", "_low", "_high", "_upper")] == [None] * 4
    assert figures["accuracy"] == 0.5
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_more_views_of_the_same_castings_prove_nothing_more() -> None:
    once = by_casting(SCORES, TARGETS, PARTS, HALF, 0.95)
    often = by_casting(np.tile(SCORES, 50), np.tile(TARGETS, 50), PARTS * 50, HALF, 0.95)

    del once["failed"], often["failed"]
    assert once == often


def test_castings_that_go_to_review_have_neither_escaped_nor_been_rejected() -> None:
    # Defective ones: to review, passed, rejected; good ones: passed, to review.
    scores, targets = np.array([0.5, 0.1, 0.9, 0.1, 0.5]), np.array([1, 1, 1, 0, 0])

    figures = by_casting(scores, targets, list("abcde"), Verdicts(0.2, 0.8), 0.95)

    assert (figures["escapes"], figures["overkills"], figures["reviewed"]) == (1, 0, 2)
    assert figures["recall"] == pytest.approx(1 / 3)
    assert figures["accuracy"] == pytest.approx(2 / 5)
    assert [failure["part"] for failure in figures["failed"]] == ["b"]


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="0 scores for 0 targets"):
        by_casting(np.array([]), np.array([]), [], HALF, 0.95)
