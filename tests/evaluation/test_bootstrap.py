"""The bootstrap over castings: what it draws, what it is worth, and how fast it is."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from zdm_ml.evaluation.bootstrap import cluster_bootstrap, resampled_weights
from zdm_ml.evaluation.castings import group

DRAW: dict[str, Any] = {"resamples": 2000, "confidence": 0.9, "seed": 3}


def castings(
    rng: np.random.Generator, count: int, views: tuple[int, int]
) -> tuple[np.ndarray, list[str]]:
    """Return targets and parts of `count` castings of each class, with unequal views."""
    sizes = rng.integers(*views, 2 * count)
    place = np.repeat(np.arange(2 * count), sizes)
    return (place >= count).astype(np.int64), [f"p{at:04d}" for at in place]


def clustered(rng: np.random.Generator, parts: list[str], rate: float) -> np.ndarray:
    """Return wrong verdicts [1, N] whose share differs from casting to casting around `rate`."""
    names = sorted(set(parts))
    of_part = dict(zip(names, rng.beta(2 * rate, 2 * (1 - rate), len(names)), strict=True))
    return rng.random((1, len(parts))) < np.array([of_part[part] for part in parts])


def test_estimates_are_the_rates_of_the_sample() -> None:
    wrong = np.array([[1, 0, 0, 0, 1, 0]], dtype=bool)
    targets, parts = np.array([1, 1, 1, 1, 0, 0]), ["a", "b", "b", "b", "c", "d"]

    (result,) = cluster_bootstrap(wrong, targets, parts, **DRAW)

    assert result["per_image"]["escape_rate"] == 1 / 4
    assert result["per_casting"]["escape_rate"] == 1 / 2
    assert result["per_image"]["accuracy"] == pytest.approx(4 / 6)
    assert result["per_casting"]["recall"] == 1 / 2
    assert result["per_casting"]["overkill_rate"] == 1 / 2


def test_every_resample_holds_as_many_castings_of_each_class() -> None:
    targets, parts = castings(np.random.default_rng(0), 7, (1, 5))

    drawn = group(targets, parts)
    weights = resampled_weights(drawn, 500, seed=1)

    assert (weights[:, drawn.defective].sum(axis=1) == 7).all()
    assert (weights[:, ~drawn.defective].sum(axis=1) == 7).all()
    assert weights.mean() == pytest.approx(1)


def test_models_are_compared_on_the_same_resamples() -> None:
    rng = np.random.default_rng(5)
    targets, parts = castings(rng, 20, (2, 9))
    wrong = clustered(rng, parts, 0.2)

    both = cluster_bootstrap(np.vstack([wrong, wrong]), targets, parts, **DRAW)
    alone = cluster_bootstrap(wrong, targets, parts, **DRAW)

    assert both[0] == both[1] == alone[0]


def test_order_of_images_does_not_matter() -> None:
    rng = np.random.default_rng(6)
    targets, parts = castings(rng, 12, (2, 9))
    wrong = clustered(rng, parts, 0.2)
    order = rng.permutation(len(parts))

    shuffled = cluster_bootstrap(
        wrong[:, order], targets[order], [parts[at] for at in order], **DRAW
    )

    assert shuffled == cluster_bootstrap(wrong, targets, parts, **DRAW)


def test_views_that_agree_do_not_narrow_the_interval() -> None:
    targets, parts = np.repeat([0, 1], 30), [f"p{at:02d}" for at in range(60)]
    wrong = np.arange(60)[None, :] % 6 == 0

    (once,) = cluster_bootstrap(wrong, targets, parts, **DRAW)
    (often,) = cluster_bootstrap(np.tile(wrong, 40), np.tile(targets, 40), parts * 40, **DRAW)

    assert once["per_image"] == often["per_image"]
    assert often["per_image"]["accuracy_high"] - often["per_image"]["accuracy_low"] > 0.1


def test_a_missing_class_has_no_rate() -> None:
    (result,) = cluster_bootstrap(np.zeros((1, 3), bool), np.ones(3, int), ["a", "a", "b"], **DRAW)

    assert result["per_image"]["overkill_rate"] is None
    assert result["per_image"]["overkill_rate_high"] is None
    assert result["per_casting"]["accuracy_low"] == 1.0
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize("weighting", ["per_image", "per_casting"])
@pytest.mark.parametrize("rate", ["escape_rate", "accuracy"])
def test_intervals_hold_about_as_often_as_promised(weighting: str, rate: str) -> None:
    rng, hits, trials, truth = np.random.default_rng(11), 0, 200, 0.2

    for _ in range(trials):
        targets, parts = castings(rng, 60, (2, 12))
        wrong = clustered(rng, parts, truth)
        (result,) = cluster_bootstrap(
            wrong, targets, parts, resamples=300, confidence=0.9, seed=int(rng.integers(1 << 30))
        )
        expected = 1 - truth if rate == "accuracy" else truth
        low, high = (result[weighting][f"{rate}_{end}"] for end in ("low", "high"))
        hits += low <= expected <= high

    assert 0.83 <= hits / trials <= 0.96


def test_eight_models_together_take_less_than_a_second() -> None:
    rng = np.random.default_rng(0)
    place = np.sort(rng.integers(0, 300, 4000))
    targets, parts = (place % 2).astype(np.int64), [f"p{at}" for at in place]
    wrong = rng.random((8, 4000)) < 0.05

    begin = time.process_time()
    cluster_bootstrap(wrong, targets, parts, **DRAW)

    assert time.process_time() - begin < 1.0
