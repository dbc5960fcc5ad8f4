"""Calibration on a side of its own, or cross-fitted on val."""

from __future__ import annotations

import json

import numpy as np
import pytest

from zdm_ml.data.manifest import Row
from zdm_ml.errors import DataError
from zdm_ml.evaluation.calibration import Calibration, calibrate, held_out_thresholds
from zdm_ml.evaluation.thresholds import choose_threshold


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

    found = calibrate(scores, rows, 0.2)

    alone = choose_threshold(
        scores[chosen],
        np.array([rows[at].target for at in chosen]),
        0.2,
        [rows[at].part for at in chosen],
    )
    assert found == Calibration(
        alone, "calibration", 12, 6, 1, alone.escapes, alone.overkills, alone.cost
    )


def test_without_one_the_figures_are_cross_fitted_on_val() -> None:
    rows = [*castings("val", 8), *castings("test", 5)]

    found = calibrate(scored(rows), rows, 0.2)

    assert (found.source, found.groups) == ("val, cross-fitted", 5)
    assert (found.castings, found.defective, found.threshold.images) == (16, 8, 48)


def test_no_casting_is_judged_by_a_threshold_that_it_chose() -> None:
    rows = castings("val", 4)
    targets, parts = np.array([row.target for row in rows]), [row.part for row in rows]
    scores = scored(rows)
    before = held_out_thresholds(scores, targets, parts, 0.2, 4)

    for part in set(parts):
        images = np.array([name == part for name in parts])
        changed = np.where(images, 1 - scores, scores)
        after = held_out_thresholds(changed, targets, parts, 0.2, 4)
        assert (after[images] == before[images]).all()


def test_held_out_figures_are_less_flattering_than_those_of_the_choice() -> None:
    costs = []
    for seed in range(40):
        rows = castings("val", 6)
        found = calibrate(scored(rows, seed), rows, 1.0)
        costs.append((found.cost, found.threshold.cost))

    held_out, in_sample = np.array(costs).mean(axis=0)

    assert held_out > in_sample * 1.2


def test_few_castings_make_fewer_groups() -> None:
    rows = [*castings("val", 2), *castings("test", 5)]

    found = calibrate(scored(rows), rows, 0.2)

    assert (found.source, found.groups) == ("val, cross-fitted", 2)


def test_a_single_casting_of_a_class_says_that_its_figures_are_in_sample() -> None:
    rows = castings("val", 1)

    found = calibrate(scored(rows), rows, 0.2)

    assert (found.source, found.groups) == ("val, in sample", 1)
    assert found.cost == found.threshold.cost


def test_order_of_images_does_not_matter() -> None:
    rows = castings("val", 7)
    scores = scored(rows)
    order = np.random.default_rng(1).permutation(len(rows))

    assert calibrate(scores[order], [rows[at] for at in order], 0.2) == calibrate(scores, rows, 0.2)


def test_decision_says_where_the_threshold_comes_from() -> None:
    rows = castings("calibration", 1, views=1)

    value = calibrate(np.array([0.1, 0.9]), rows, 0.2).as_decision()

    assert json.loads(json.dumps(value, allow_nan=False)) == {
        "threshold": 0.5,
        "positive": "defect",
        "overkill_weight": 0.2,
        "calibration": {
            "source": "calibration",
            "images": 2,
            "castings": 2,
            "castings_defect": 1,
            "castings_ok": 1,
            "groups": 1,
            "escapes": 0,
            "overkills": 0,
            "cost": 0.0,
        },
    }


def test_no_calibration_images_are_refused() -> None:
    with pytest.raises(DataError, match="0 scores for 0 targets"):
        calibrate(np.array([]), [], 0.2)
