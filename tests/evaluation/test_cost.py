"""Money per 10,000 parts, at the plant's rate of defects."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from money import COST

from zdm_ml.evaluation.cost import (
    Rates,
    at_the_plant,
    expected_cost,
    overkill_weight,
    precision_at,
    review_load,
)


def test_cost_counts_a_thousand_defects_in_ten_thousand_parts() -> None:
    # 1,000 defective parts, of which half escape; 9,000 good ones, of which a tenth is rejected.
    assert expected_cost(COST, Rates(escaped=0.5, rejected=0.1)) == 500 * 100 + 900 * 10


def test_reviews_cost_whatever_they_find() -> None:
    rates = Rates(0.0, 0.0, reviewed_defective=0.5, reviewed_good=0.5)

    assert expected_cost(COST, rates) == 5000 * 2
    assert review_load(COST, rates) == pytest.approx(0.5)


def test_precision_falls_with_the_prevalence() -> None:
    rates = Rates(escaped=0.0, rejected=0.1)

    common, rare = (precision_at(replace(COST, prevalence=p), rates) for p in (0.5, 0.01))

    assert common == pytest.approx(0.5 / 0.55)
    assert rare == pytest.approx(0.01 / (0.01 + 0.99 * 0.1))


def test_nothing_rejected_has_no_precision() -> None:
    assert at_the_plant(COST, Rates(escaped=1.0, rejected=0.0))["precision"] is None


@given(st.integers(1, 50), st.integers(1, 50))
def test_weighted_errors_of_a_sample_rank_as_the_expected_cost_does(bad: int, good: int) -> None:
    weight = overkill_weight(COST, bad, good)

    one_escape = expected_cost(COST, Rates(1 / bad, 0.0))
    one_overkill = expected_cost(COST, Rates(0.0, 1 / good))

    assert one_overkill == pytest.approx(weight * one_escape, rel=1e-6)


def test_a_sample_of_one_class_counts_as_it_is() -> None:
    assert overkill_weight(COST, 5, 0) == overkill_weight(COST, 0, 5) == 0.1
