"""The promise of the verdict ok."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from money import PROMISE

from zdm_ml.evaluation.bounds import castings_needed, upper_bound
from zdm_ml.evaluation.guarantee import guarantee, lowest_scores, ok_limit


def defective(castings: int, views: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list]:
    """Return scores, targets and parts of defective castings and a good one."""
    rng = np.random.default_rng(seed)
    scores = np.append(rng.uniform(0.3, 1, castings * views), 0.1)
    parts = [f"p{at // views}" for at in range(castings * views)] + ["good"]
    return scores, np.append(np.ones(castings * views, dtype=np.int64), 0), parts


def test_the_lowest_score_of_each_defective_casting_counts() -> None:
    scores, targets = np.array([0.9, 0.4, 0.7, 0.1]), np.array([1, 1, 1, 0])

    assert lowest_scores(scores, targets, ["b", "b", "a", "good"]).tolist() == [0.7, 0.4]


def test_too_few_castings_promise_nothing_and_say_how_many_are_missing() -> None:
    found = guarantee(*defective(20), PROMISE, own=True)

    assert (found.holds, found.castings, found.missing, found.ok_below) == (False, 20, 9, None)
    assert found.reason == (
        "no guarantee: 9 more defective castings needed for an escape rate of at most 10.00% at"
        " 95 %"
    )


def test_one_casting_more_is_enough() -> None:
    needed = castings_needed(PROMISE.max_escape_rate, PROMISE.confidence)

    assert not guarantee(*defective(needed - 1), PROMISE, own=True).holds
    assert guarantee(*defective(needed), PROMISE, own=True).holds


def test_just_enough_castings_let_no_casting_like_them_pass() -> None:
    scores, targets, parts = defective(29)

    found = guarantee(scores, targets, parts, PROMISE, own=True)

    assert found.ok_below == lowest_scores(scores, targets, parts).min()


def test_castings_that_the_net_learnt_from_prove_nothing() -> None:
    found = guarantee(*defective(500), PROMISE, own=False)

    assert (found.holds, found.castings, found.missing) == (False, 0, 29)
    assert "no calibration castings were held back" in found.reason


@settings(deadline=None)
@given(st.integers(1, 400), st.sampled_from([0.01, 0.05, 0.2]), st.sampled_from([0.9, 0.95]))
def test_the_limit_passes_as_many_as_the_exact_bound_allows(
    castings: int, max_rate: float, confidence: float
) -> None:
    lowest = np.sort(np.random.default_rng(castings).uniform(size=castings))

    limit = ok_limit(lowest, max_rate, confidence)

    passed = -1 if limit is None else int((lowest < limit).sum())
    allowed = [
        cases
        for cases in range(castings)
        if (upper_bound(cases, castings, confidence) or 0) <= max_rate + 1e-12
    ]
    assert passed == max(allowed, default=-1)


def test_the_promise_is_kept_as_often_as_it_says() -> None:
    """True escape rates of 400 calibrations: above the promised one in about 5 % at most."""
    rng = np.random.default_rng(7)
    broken = []
    for _ in range(400):
        limit = ok_limit(rng.uniform(size=80), 0.1, 0.95)
        # Scores are uniform: the limit is its own escape rate.
        broken.append(limit is not None and limit > 0.1)

    # 5 % of 400 is 20; 34 would be three standard deviations above.
    assert np.sum(broken) < 34
    assert np.sum(broken) > 0


@pytest.mark.parametrize("castings", [0, 28])
def test_no_limit_is_proven_by_too_few(castings: int) -> None:
    assert ok_limit(np.linspace(0, 1, castings), 0.1, 0.95) is None
