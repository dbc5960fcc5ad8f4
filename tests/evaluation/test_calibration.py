"""Calibration on a side of its own, or cross-fitted on val."""

from __future__ import annotations

import json

import numpy as np
import pytest
from money import COST, PROMISE

from zdm_ml.data.manifest import Row
from zdm_ml.errors import DataError
from zdm_ml.evaluation.calibration import calibrate, cost_threshold, held_out_thresholds
from zdm_ml.evaluation.verdicts import Verdicts
from zdm_ml.params import VerdictParams


def castings(split: str, per_class: int, views: int = 3) -> list[Row]:
    """Return rows of `per_class` castings of each class, `views` images each."""
    return [
        Row(f"{split}/{part}-{view}", "", label, part, "train", split, -1, 1, 1, 0.0, "", "")
        for label in ("ok", "defect")
        for part in (f"{split}-{label}-{at}" for at in range(per_class))
        for view in range(views)
    ]


def scored(rows: list[Row], seed: int = 0, noise: float = 0.15) -> np.ndarray:
    rng = np.random.default_rng(seed)
    offsets = {part: rng.normal(0, noise) for part in sorted({row.part for row in rows})}
    means = np.array([0.35 + 0.3 * row.target + offsets[row.part] for row in rows])
    return np.clip(means + rng.normal(0, 0.03, len(rows)), 0, 1)


def test_a_side_of_its_own_chooses_the_threshold() -> None:
    rows = [*castings("val", 4), *castings("calibration", 6), *castings("test", 5)]
    scores = scored(rows)
    chosen = [at for at, row in enumerate(rows) if row.split == "calibration"]

    found = calibrate(scores, rows, COST, PROMISE)

    alone = cost_threshold(
        scores[chosen],
        np.array([rows[at].target for at in chosen]),
        [rows[at].part for at in chosen],
        COST,
    )
    assert found.threshold == alone
    assert (found.source, found.castings, found.defective, found.groups) == (
        "calibration",
        12,
        6,
        1,
    )
    assert (found.escapes, found.overkills) == (alone.escapes, alone.overkills)
    assert found.verdicts == Verdicts(alone.value, alone.value)


def test_enough_castings_of_their_own_side_make_a_promise_and_a_band_for_review() -> None:
    rows = [*castings("calibration", 60), *castings("test", 5)]
    calibrated = calibrate(scored(rows), rows, COST, PROMISE)

    low, high = calibrated.verdicts.ok_below, calibrated.verdicts.defect_from

    assert calibrated.guarantee.holds
    assert low <= (calibrated.guarantee.ok_below or 0) < high


def test_castings_of_val_promise_nothing() -> None:
    rows = castings("val", 60)

    calibrated = calibrate(scored(rows), rows, COST, PROMISE)

    assert not calibrated.guarantee.holds
    assert calibrated.verdicts.ok_below == calibrated.verdicts.defect_from


def test_a_stricter_promise_sends_more_castings_to_review() -> None:
    rows = castings("calibration", 120)
    loose, strict = (
        calibrate(scored(rows), rows, COST, VerdictParams(rate, 0.95)) for rate in (0.1, 0.03)
    )

    assert strict.verdicts.ok_below < loose.verdicts.ok_below


def test_without_one_the_figures_are_cross_fitted_on_val() -> None:
    rows = [*castings("val", 8), *castings("test", 5)]

    found = calibrate(scored(rows), rows, COST, PROMISE)

    assert (found.source, found.groups) == ("val, cross-fitted", 5)
    assert (found.castings, found.defective, found.threshold.images) == (16, 8, 48)


def test_no_casting_is_judged_by_a_threshold_that_it_chose() -> None:
    rows = castings("val", 4)
    targets, parts = np.array([row.target for row in rows]), [row.part for row in rows]
    scores = scored(rows)
    before = held_out_thresholds(scores, targets, parts, COST, 4)

    for part in set(parts):
        images = np.array([name == part for name in parts])
        changed = np.where(images, 1 - scores, scores)
        after = held_out_thresholds(changed, targets, parts, COST, 4)
        assert (after[images] == before[images]).all()


def test_held_out_figures_are_less_flattering_than_those_of_the_choice() -> None:
    costs = []
    for seed in range(40):
        rows = castings("val", 6)
        found = calibrate(scored(rows, seed), rows, COST, PROMISE)
        chosen = castings("calibration", 6)
        in_sample = calibrate(scored(chosen, seed), chosen, COST, PROMISE)
        costs.append((found.cost, in_sample.cost))

    held_out, in_sample = np.array(costs).mean(axis=0)

    assert held_out > in_sample * 1.2


def test_few_castings_make_fewer_groups() -> None:
    rows = [*castings("val", 2), *castings("test", 5)]

    found = calibrate(scored(rows), rows, COST, PROMISE)

    assert (found.source, found.groups) == ("val, cross-fitted", 2)


def test_a_single_casting_of_a_class_says_that_its_figures_are_in_sample() -> None:
    rows = castings("val", 1)

    found = calibrate(scored(rows), rows, COST, PROMISE)

    assert (found.source, found.groups) == ("val, in sample", 1)


def test_order_of_images_does_not_matter() -> None:
    rows = castings("val", 7)
    scores = scored(rows)
    order = np.random.default_rng(1).permutation(len(rows))

    assert calibrate(scores[order], [rows[at] for at in order], COST, PROMISE) == calibrate(
        scores, rows, COST, PROMISE
    )


def test_decision_says_how_verdicts_come_about_and_what_they_rest_on() -> None:
    rows = castings("calibration", 1, views=1)

    value = calibrate(np.array([0.1, 0.9]), rows, COST, PROMISE).as_decision()

    value = json.loads(json.dumps(value, allow_nan=False))
    assert [value[key] for key in ("threshold", "ok_below", "defect_from")] == [0.5] * 3
    assert value["costs"] == vars(COST)
    assert (value["guarantee"]["holds"], value["guarantee"]["missing"]) == (False, 28)
    assert value["calibration"] == {
        "source": "calibration",
        "images": 2,
        "castings": 2,
        "castings_defect": 1,
        "castings_ok": 1,
        "groups": 1,
        "escapes": 0,
        "overkills": 0,
        "cost": 0.0,
    }


def test_no_calibration_images_are_refused() -> None:
    with pytest.raises(DataError, match="0 scores for 0 targets"):
        calibrate(np.array([]), [], COST, PROMISE)
