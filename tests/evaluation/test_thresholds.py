import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zdm_ml.errors import DataError
from zdm_ml.evaluation.metrics import confusion, weighted_cost
from zdm_ml.evaluation.thresholds import choose_threshold

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=25)


def arrays(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([s for s, _ in pairs]), np.array([int(d) for _, d in pairs])


def cost_at(scores: np.ndarray, targets: np.ndarray, value: float, weight: float) -> float:
    _, overkills, escapes, _ = confusion(scores, targets, value)
    return weighted_cost(escapes, overkills, weight)


@settings(deadline=None)  # other programs may hold the CPU
@given(PAIRS, st.sampled_from([0.0, 0.2, 1.0, 3.0]))
def test_no_other_threshold_costs_less(pairs: list[tuple[float, bool]], weight: float) -> None:
    scores, targets = arrays(pairs)

    chosen = choose_threshold(scores, targets, weight)

    others = [0.0, *scores, *np.nextafter(scores, 2), 1.5]
    assert chosen.cost <= min(cost_at(scores, targets, other, weight) for other in others)


@settings(deadline=None)  # other programs may hold the CPU
@given(PAIRS, st.sampled_from([0.0, 0.2, 1.0, 3.0]))
def test_counts_are_those_at_the_value(pairs: list[tuple[float, bool]], weight: float) -> None:
    scores, targets = arrays(pairs)

    chosen = choose_threshold(scores, targets, weight)

    _, overkills, escapes, _ = confusion(scores, targets, chosen.value)
    assert (chosen.escapes, chosen.overkills) == (escapes, overkills)
    assert chosen.cost == weighted_cost(chosen.escapes, chosen.overkills, weight)


@settings(deadline=None)  # other programs may hold the CPU
@given(PAIRS)
def test_order_of_images_does_not_matter(pairs: list[tuple[float, bool]]) -> None:
    forward = choose_threshold(*arrays(pairs), 0.2)

    assert choose_threshold(*arrays(pairs[::-1]), 0.2) == forward


def test_threshold_lies_midway_between_the_classes() -> None:
    scores, targets = np.array([0.1, 0.2, 0.7, 0.9]), np.array([0, 0, 1, 1])

    assert choose_threshold(scores, targets, 0.2).value == pytest.approx(0.45)


def test_equal_costs_take_the_widest_gap() -> None:
    scores, targets = np.array([0.1, 0.2, 0.3, 0.75, 0.9]), np.array([0, 1, 0, 0, 1])

    # Either the escape at 0.2 or the overkills at 0.3 and 0.75: both cost 1 at weight 0.5.
    chosen = choose_threshold(scores, targets, 0.5)

    assert chosen.cost == 1
    assert chosen.value == pytest.approx(0.825)


def test_equal_gaps_take_the_lower_threshold() -> None:
    scores, targets = np.array([0.25, 0.5, 0.75]), np.array([0, 1, 0])

    chosen = choose_threshold(scores, targets, 1.0)

    assert chosen.cost == 1
    assert chosen.value == pytest.approx(0.375)


def test_heavier_overkills_raise_the_threshold() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 300)
    scores = np.clip(rng.normal(0.4 + 0.2 * targets, 0.15), 0, 1)

    light, heavy = (choose_threshold(scores, targets, weight) for weight in (0.1, 2.0))

    assert light.value < heavy.value
    assert light.escapes < heavy.escapes


@pytest.mark.parametrize("target", [0, 1])
def test_saturated_scores_of_one_class_cost_nothing(target: int) -> None:
    chosen = choose_threshold(np.ones(5), np.full(5, target), 0.2)

    assert (chosen.escapes, chosen.overkills) == (0, 0)


def test_many_views_of_one_casting_weigh_no_more_than_one_view() -> None:
    # Nine views of one odd good casting at 0.6 against three defective castings at 0.4.
    scores = np.array([*[0.6] * 9, 0.1, 0.4, 0.4, 0.4, 0.9])
    targets = np.array([*[0] * 10, *[1] * 4])
    parts = [*["odd"] * 9, "good", "x", "y", "z", "far"]

    by_image = choose_threshold(scores, targets, 1.0)
    by_casting = choose_threshold(scores, targets, 1.0, parts)

    assert (by_image.escapes, by_image.overkills) == (3, 0)
    assert (by_casting.escapes, by_casting.overkills) == (0, 9)
    assert by_casting.cost == 1


@settings(deadline=None)  # other programs may hold the CPU
@given(PAIRS, st.integers(2, 4))
def test_copies_of_every_image_change_nothing(pairs: list[tuple[float, bool]], copies: int) -> None:
    scores, targets = arrays(pairs)
    parts = [f"p{at}" for at in range(len(pairs))]

    once = choose_threshold(scores, targets, 0.2, parts)
    often = choose_threshold(np.tile(scores, copies), np.tile(targets, copies), 0.2, parts * copies)

    assert (often.value, often.cost) == (once.value, once.cost)


@pytest.mark.parametrize(("good", "defect", "value"), [(0.05, 0.9, 0.225), (0.1, 0.95, 0.775)])
def test_thirds_of_a_casting_tie_with_a_whole_one(good: float, defect: float, value: float) -> None:
    # Either an overkill in three views of one casting or an escape in one view: the gap decides.
    scores = np.array([0.6, 0.6, 0.6, good, 0.4, defect])

    chosen = choose_threshold(scores, np.array([0, 0, 0, 0, 1, 1]), 1.0, [*"aaa", *"bcd"])

    assert chosen.cost == 1
    assert chosen.value == pytest.approx(value)


def test_no_calibration_images_are_refused() -> None:
    with pytest.raises(DataError, match="0 scores for 0 targets"):
        choose_threshold(np.array([]), np.array([]), 0.2)
