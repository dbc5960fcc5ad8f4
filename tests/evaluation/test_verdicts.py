"""ok, defect or review."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from money import COST

from zdm_ml.evaluation.cost import Rates, expected_cost
from zdm_ml.evaluation.verdicts import Verdicts, choose_verdicts, read_ruling

IMAGES = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=25).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


def arrays(pairs: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    scores = np.array([score / 20 for score, _ in pairs])
    targets = np.array([int(defect) for _, defect in pairs])
    return scores, targets, [f"p{at}" for at in range(len(pairs))]


def test_between_the_thresholds_a_person_looks() -> None:
    verdicts = Verdicts(0.3, 0.7)

    assert [verdicts.of(score) for score in (0.0, 0.29, 0.3, 0.69, 0.7, 1.0)] == [
        *["ok"] * 2,
        *["review"] * 2,
        *["defect"] * 2,
    ]


def test_one_threshold_leaves_nothing_to_review() -> None:
    verdicts = Verdicts(0.5, 0.5)

    assert {verdicts.of(score) for score in np.linspace(0, 1, 101)} == {"ok", "defect"}


def test_rates_weigh_each_casting_one() -> None:
    # Casting a: one of three views passed, one reviewed. b: rejected. c, good: reviewed. d: passed.
    scores = np.array([0.1, 0.5, 0.9, 0.9, 0.5, 0.1])
    targets = np.array([1, 1, 1, 1, 0, 0])

    rates = Verdicts(0.3, 0.7).rates(scores, targets, [*"aaab", "c", "d"])

    assert rates == Rates(
        escaped=pytest.approx(1 / 6),
        rejected=0.0,
        reviewed_defective=pytest.approx(1 / 6),
        reviewed_good=0.5,
    )


@settings(deadline=None)
@given(IMAGES, st.floats(0.05, 1.0), st.sampled_from([0.0, 2.0, 50.0]))
def test_no_pair_within_the_limit_costs_less(
    pairs: list[tuple[int, bool]], limit: float, review: float
) -> None:
    scores, targets, parts = arrays(pairs)
    cost = replace(COST, review=review)

    chosen = choose_verdicts(scores, targets, parts, cost, limit)

    def cost_of(verdicts: Verdicts) -> float:
        return expected_cost(cost, verdicts.rates(scores, targets, parts))

    edges = sorted({0.0, limit, *(level + 0.01 for level in scores), *scores, 1.1})
    grid = [Verdicts(low, high) for low in edges if low <= limit for high in edges if high >= low]
    assert chosen.ok_below <= limit
    assert chosen.ok_below <= chosen.defect_from
    if review <= COST.overkill:
        assert cost_of(chosen) <= min(map(cost_of, grid)) + 1e-6


def test_dear_reviews_leave_no_band() -> None:
    scores, targets = np.array([0.1, 0.2, 0.6, 0.8]), np.array([0, 1, 0, 1])
    cheap, dear = (
        choose_verdicts(scores, targets, [*"abcd"], replace(COST, review=review), 1.0)
        for review in (0.1, 9.9)
    )

    assert cheap.of(0.2) == "review" or cheap.of(0.6) == "review"
    assert dear.ok_below == dear.defect_from


def test_a_ruling_reads_thresholds_and_guarantee() -> None:
    ruling = read_ruling(
        {
            "positive": "defect",
            "threshold": 0.5,
            "ok_below": 0.25,
            "defect_from": 0.75,
            "guarantee": {"holds": True, "reason": "at most 1 %"},
        }
    )

    assert (ruling.verdicts, ruling.threshold) == (Verdicts(0.25, 0.75), 0.5)
    assert (ruling.guaranteed, ruling.statement) == (True, "at most 1 %")


def test_a_decision_with_a_threshold_alone_promises_nothing() -> None:
    ruling = read_ruling({"positive": "defect", "threshold": 0.5})

    assert ruling.verdicts == Verdicts(0.5, 0.5)
    assert not ruling.guaranteed
    assert ruling.statement.startswith("no guarantee")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"positive": "ok"}, "not about defects"),
        ({"threshold": "high"}, "threshold 'high'"),
        ({"threshold": float("nan")}, "threshold nan"),
        ({"ok_below": 0.9}, r"ok below 0\.9, but a defect from 0\.5"),
        ({"defect_from": float("inf")}, "threshold inf"),
    ],
)
def test_a_ruling_that_cannot_be_followed_is_refused(broken: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_ruling({"positive": "defect", "threshold": 0.5, **broken})
