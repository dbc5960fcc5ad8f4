"""Findings: how bad a figure is, and that luck is not taken for a shortcut."""

from __future__ import annotations

from typing import Any

import pytest

from zdm_ml.data.findings import escape_bound, findings

FIGURES: dict[str, Any] = {
    **{"images": 200, "parts": 130, "quarantined": 0, "exact_duplicates": 0, "near_duplicates": 0},
    **{"test_images": 100, "test_images_with_train_sibling": 0, "identical_across_splits": 0},
    "label_conflicts": 0,
    "label_conflict_images": {"castings": {}, "same_bytes": []},
    "effective_sample_size": {"ok": 65, "defect": 65},
    "families": 130,
    "per_class": {"ok": 100, "defect": 100},
    "odd_sizes": {"usual": "300x300", "images": 0, "examples": []},
    "contradictions": [],
    "warnings": [],
    "probes": {
        name: {
            **{"auc": 0.55, "auc_per_part": 0.55, "chance": 0.6},
            **{"defects_are": "darker", "method": "the number itself"},
        }
        for name in ("brightness", "contrast", "background")
    },
}


def _worst(**changes: Any) -> tuple[str, str]:
    worst = findings({**FIGURES, **changes})[0]
    return worst.level.word, worst.action


def _brightness(auc: float | None, chance: float) -> dict[str, Any]:
    probes = FIGURES["probes"]
    return {**probes, "brightness": {**probes["brightness"], "auc_per_part": auc, "chance": chance}}


def test_a_sound_dataset_is_green_and_asks_for_nothing() -> None:
    found = findings(FIGURES)

    assert {item.level.word for item in found} == {"green"}
    assert not any(item.action for item in found)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"test_images_with_train_sibling": 1}, "red"),
        ({"test_images": 1000, "test_images_with_train_sibling": 1}, "amber"),
        ({"effective_sample_size": {"ok": 9, "defect": 65}}, "red"),
        ({"effective_sample_size": {"ok": 58, "defect": 65}}, "amber"),
        ({"label_conflicts": 1}, "amber"),
        ({"label_conflict_images": {"castings": {}, "same_bytes": [["a", "b"]]}}, "red"),
        ({"quarantined": 1}, "amber"),
        ({"exact_duplicates": 1}, "amber"),
        ({"near_duplicates": 1}, "amber"),
        ({"odd_sizes": {"usual": "300x300", "images": 1, "examples": ["a"]}}, "amber"),
        ({"warnings": ["parts.csv: 1 of its paths are no images here, such as x"]}, "amber"),
        ({"probes": _brightness(0.8, 0.6)}, "red"),
        ({"probes": _brightness(0.8, 0.85)}, "amber"),
        ({"probes": _brightness(None, 0.6)}, "amber"),
    ],
)
def test_each_fault_has_its_colour(changes: dict[str, Any], level: str) -> None:
    assert _worst(**changes)[0] == level


def test_an_auc_within_luck_asks_for_castings_and_not_for_other_light() -> None:
    assert _worst(probes=_brightness(0.8, 0.85))[1] == "Add castings, then audit again."


def test_castings_that_may_be_one_lower_their_number() -> None:
    measured = next(
        item.measured
        for item in findings({**FIGURES, "families": 88})
        if item.title == "Number of different castings"
    )

    assert "only 88 if" in measured


def test_59_castings_without_an_error_prove_a_rate_below_5_percent() -> None:
    assert escape_bound(59) < 0.05 < escape_bound(58)
    assert escape_bound(0) == 1.0
