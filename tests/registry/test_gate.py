"""The gate on figures alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zdm_ml.registry.decision import Check, unmet
from zdm_ml.registry.gate import (
    Evidence,
    Policy,
    Side,
    explain,
    judge,
    leak_check,
    measure,
    profile_check,
)

POLICY = Policy(floor=0.9, min_castings=10, cost_tolerance=0.0, overkill_weight=0.2)


def _side(escapes: int = 0, overkills: int = 0, balanced: float = 1.0) -> Side:
    return Side("full", escapes, overkills, balanced, (escapes + 0.2 * overkills) / 100)


def _judge(challenger: Side, champion: Side | None, castings: int = 50) -> dict[str, Check]:
    evidence = Evidence(100, castings, castings, challenger, champion)
    return {item.name: item for item in judge(evidence, POLICY)}


def test_measure_counts_escapes_and_overkills_at_the_threshold() -> None:
    side = measure("full", [0.9, 0.5, 0.4, 0.5, 0.1], [1, 1, 1, 0, 0], 0.5, 0.2)

    assert (side.escapes, side.overkills) == (1, 1)
    assert side.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert side.cost_per_image == pytest.approx(1.2 / 5)


def test_a_class_without_images_has_no_balanced_accuracy() -> None:
    assert measure("full", np.empty(0), np.empty(0), 0.5, 0.2).balanced_accuracy == 0.0


def test_an_equal_challenger_passes() -> None:
    assert not unmet(_judge(_side(2, 3), _side(2, 3)).values())


def test_the_first_champion_needs_floors_and_evidence_only() -> None:
    checks = _judge(_side(5, 5, balanced=0.95), None)

    assert set(checks) == {"castings_ok", "castings_defect", "balanced_accuracy"}
    assert not unmet(checks.values())


def test_fewer_overkills_do_not_buy_an_escape() -> None:
    checks = _judge(_side(escapes=3, overkills=0), _side(escapes=2, overkills=20))

    assert [item.name for item in unmet(checks.values())] == ["escapes"]


def test_too_few_castings_are_broken_evidence() -> None:
    checks = _judge(_side(), _side(), castings=9)

    assert checks["castings_ok"].state == checks["castings_defect"].state == "broken"
    assert "broken evidence, 9, needed 10" in explain(checks.values())


@pytest.mark.parametrize(
    ("challenger", "champion", "state"),
    [
        ("full", "full", "passed"),
        ("quick", "full", "failed"),
        ("smoke", "full", "failed"),
        ("quick", "smoke", "passed"),
        ("full", "quick", "passed"),
        ("quick", None, "passed"),
    ],
)
def test_a_demo_never_replaces_a_full_model(
    challenger: str, champion: str | None, state: str
) -> None:
    assert profile_check(challenger, champion).state == state


@pytest.mark.parametrize(
    ("profile", "says", "shared", "state"),
    [
        ("full", False, 0, "passed"),
        ("full", True, 0, "failed"),
        ("full", False, 3, "failed"),
        ("full", None, 3, "failed"),
        ("full", None, 0, "broken"),
        ("full", "false", 0, "broken"),
        ("quick", True, 3, "passed"),
        ("smoke", None, 0, "passed"),
    ],
)
def test_no_leaky_model_of_profile_full_passes(
    profile: str, says: object, shared: int, state: str
) -> None:
    assert leak_check(profile, says, shared).state == state


def test_a_leaky_demo_says_so() -> None:
    assert leak_check("quick", True, 0).value == "leaky demo"
    assert leak_check("smoke", False, 5).value == "leaky demo"
    assert leak_check("smoke", False, 0).value == "no leak known"


@given(
    escapes=st.tuples(st.integers(0, 50), st.integers(0, 50)),
    overkills=st.tuples(st.integers(0, 50), st.integers(0, 50)),
)
def test_what_passes_has_no_more_escapes_and_no_higher_cost(
    escapes: tuple[int, int], overkills: tuple[int, int]
) -> None:
    challenger, champion = (_side(e, o) for e, o in zip(escapes, overkills, strict=True))

    passed = not unmet(_judge(challenger, champion).values())

    not_worse = escapes[0] <= escapes[1] and (
        challenger.cost_per_image <= champion.cost_per_image + 1e-9
    )
    assert passed == not_worse
