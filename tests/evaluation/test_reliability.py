"""Whether scores are probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zdm_ml.evaluation.reliability import (
    TEMPERATURES,
    brier,
    calibration_error,
    even_weights,
    fit_temperature,
    logits_of,
    reliability,
    reliability_figures,
    tempered,
)


def sample(temperature: float, castings: int = 4000) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return scores that are overconfident by `temperature`, with the truth drawn honestly."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, castings)
    targets = (rng.uniform(size=castings) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    scores = 1 / (1 + np.exp(-logits * temperature))
    return scores, targets, [str(at) for at in range(castings)]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_scores_overconfident_is_found(temperature: float) -> None:
    assert fit_temperature(*sample(temperature)) == pytest.approx(temperature, rel=0.08)


def test_tempered_scores_are_better_calibrated() -> None:
    scores, targets, parts = sample(3.0)

    figures = reliability_figures(scores, targets, parts, fit_temperature(scores, targets, parts))

    assert figures["tempered"]["calibration_error"] < 0.03 < figures["scored"]["calibration_error"]
    assert figures["tempered"]["brier"] < figures["scored"]["brier"]


def test_the_order_of_scores_survives_any_temperature() -> None:
    scores = np.array([0.0, 1e-9, 0.2, 0.5, 0.9, 1.0])

    assert (np.diff(tempered(scores, 5.0)) > 0).all()


def test_classes_told_apart_without_an_error_stop_at_a_bound() -> None:
    scores, targets = np.array([0.4, 0.45, 0.6, 0.7]), np.array([0, 0, 1, 1])

    found = fit_temperature(scores, targets, [*"abcd"])

    assert found == pytest.approx(TEMPERATURES[0], rel=0.01)


def test_one_class_alone_leaves_scores_as_they_are() -> None:
    assert fit_temperature(np.array([0.2, 0.9]), np.array([1, 1]), ["a", "b"]) == 1.0


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=12))
def test_weights_give_each_class_half_and_each_casting_its_share(parts: list[str]) -> None:
    targets = np.array([int(part == "a") for part in parts])

    weights = even_weights(targets, parts)

    assert weights.sum() == pytest.approx(1)
    if {"b", "c"} <= set(parts):
        b, c = (weights[np.array(parts) == part].sum() for part in "bc")
        assert b == pytest.approx(c)


def test_scores_at_both_ends_stay_finite() -> None:
    assert np.isfinite(logits_of(np.array([0.0, 1.0]))).all()


def test_bins_hold_all_weight_and_their_means() -> None:
    probabilities, targets = np.array([0.05, 0.08, 0.95, 1.0]), np.array([0, 1, 1, 1])

    rows = reliability(probabilities, targets, np.full(4, 0.25))

    assert [row["bin"] for row in rows] == ["0.0 to 0.1", "0.9 to 1.0"]
    assert [row["defective"] for row in rows] == [0.5, 1.0]
    assert calibration_error(rows) == pytest.approx(0.5 * (0.5 - 0.065) + 0.5 * 0.025)
    assert brier(probabilities, targets, np.full(4, 0.25)) == pytest.approx(
        (0.05**2 + 0.92**2 + 0.05**2) / 4
    )
