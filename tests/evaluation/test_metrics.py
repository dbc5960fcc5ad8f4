import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from zdm_ml.data.manifest import Row
from zdm_ml.errors import DataError
from zdm_ml.evaluation.metrics import (
    confusion_rows,
    metrics,
    pr_points,
    roc_points,
    side,
    weighted_cost,
)

SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.7, 0.5])
TARGETS = np.array([0, 0, 1, 1, 1, 0])


def test_figures_of_a_small_example() -> None:
    result = metrics(SCORES, TARGETS, 0.5)

    assert result["confusion"] == [[2, 1], [1, 2]]
    assert (result["escapes"], result["overkills"]) == (1, 1)
    assert (result["images"], result["defects"], result["good"]) == (6, 3, 3)
    assert result["accuracy"] == pytest.approx(4 / 6)
    assert result["roc_auc"] == pytest.approx(7 / 9)


def test_a_score_at_the_threshold_is_a_defect() -> None:
    assert metrics(np.array([0.5]), np.array([1]), 0.5)["escapes"] == 0


@settings(deadline=None)  # other programs may hold the CPU
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40), st.floats(0, 1)
)
def test_figures_agree_with_scikit_learn(pairs: list[tuple[float, bool]], threshold: float) -> None:
    pairs = [*pairs, (0.3, True), (0.6, False)]
    scores = np.array([score for score, _ in pairs])
    targets = np.array([int(defect) for _, defect in pairs])
    judged = (scores >= threshold).astype(int)

    result = metrics(scores, targets, threshold)

    assert result["accuracy"] == pytest.approx(reference.accuracy_score(targets, judged))
    assert result["balanced_accuracy"] == pytest.approx(
        reference.balanced_accuracy_score(targets, judged)
    )
    for name in ("precision", "recall", "f1"):
        expected = getattr(reference, f"{name}_score")(targets, judged, zero_division=0)
        assert result[name] == pytest.approx(expected)
    assert result["confusion"] == reference.confusion_matrix(targets, judged).tolist()


@pytest.mark.parametrize("target", [0, 1])
def test_one_class_alone_has_no_auc_and_no_curve(target: int) -> None:
    targets = np.full(6, target)

    result = metrics(SCORES, targets, 0.45)

    assert result["roc_auc"] is None
    assert result["balanced_accuracy"] == 0.5
    assert roc_points(SCORES, targets) == []


def test_everything_can_be_written_as_json() -> None:
    values = [
        metrics(SCORES, TARGETS, 2.0),
        roc_points(SCORES, TARGETS),
        pr_points(SCORES, TARGETS),
    ]

    assert json.loads(json.dumps(values, allow_nan=False)) == values


@pytest.mark.parametrize("scores", [np.array([]), np.array([0.5])])
def test_scores_without_a_target_each_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(DataError, match="scores for"):
        metrics(scores, np.array([1, 0])[: len(scores) * 2], 0.5)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 6 scores are not finite"):
        metrics(np.where(SCORES == 0.4, np.nan, SCORES), TARGETS, 0.5)


@pytest.mark.parametrize("points", [roc_points, pr_points])
def test_each_point_of_a_curve_is_what_its_threshold_gives(points) -> None:
    for point in points(SCORES, TARGETS):
        at = metrics(SCORES, TARGETS, point["threshold"])
        if "tpr" in point:
            assert point["tpr"] == pytest.approx(at["recall"])
            assert point["fpr"] == pytest.approx(at["overkills"] / at["good"])
        elif point["threshold"] <= 1:
            assert point["precision"] == pytest.approx(at["precision"])
            assert point["recall"] == pytest.approx(at["recall"])


def test_roc_curve_runs_from_corner_to_corner() -> None:
    points = roc_points(SCORES, TARGETS)

    assert (points[0]["fpr"], points[0]["tpr"]) == (0, 0)
    assert (points[-1]["fpr"], points[-1]["tpr"]) == (1, 1)


def test_confusion_rows_name_the_classes() -> None:
    rows = confusion_rows(SCORES[:3], TARGETS[:3], 0.4)

    assert rows == [
        {"actual": "ok", "predicted": "ok"},
        {"actual": "ok", "predicted": "defect"},
        {"actual": "defect", "predicted": "ok"},
    ]


def test_equal_costs_compare_as_equal() -> None:
    assert weighted_cost(0, 3, 0.2) == 0.6
    assert weighted_cost(2, 0, 0.2) == weighted_cost(1, 5, 0.2)


def test_side_takes_the_rows_of_one_split() -> None:
    def row(split, label) -> Row:
        return Row("a", "", label, "", "train", split, -1, 1, 1, 0.0, "", "")

    rows = [row("val", "ok"), row("test", "defect"), row("val", "defect"), row("test", "ok")]

    scores, targets = side(np.array([0.1, 0.2, 0.3, 0.4]), rows, "test")

    assert scores.tolist() == [0.2, 0.4]
    assert targets.tolist() == [1, 0]
