"""The gate on figures alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from castings_rows import castings
from hypothesis import given, settings
from hypothesis import strategies as st
from money import COST

from zdm_ml.evaluation.verdicts import Verdicts
from zdm_ml.params import VerdictParams
from zdm_ml.registry.decision import Check, unmet
from zdm_ml.registry.gate import (
    Evidence,
    Policy,
    Side,
    explain,
    judge,
    latency_check,
    leak_check,
    measure,
    perturbation_check,
    profile_check,
    slices_of,
)

POLICY = Policy(
    floor=0.6,
    perturbation_floor=0.5,
    min_castings=10,
    escape_margin=0.1,
    slice_margin=0.2,
    cost_tolerance=0.0,
    cost=COST,
    promise=VerdictParams(0.01, 0.95),
    confidence=0.95,
    resamples=200,
)
HALF = Verdicts(0.5, 0.5)


def side(castings: int, escapes: Sequence[int] = (), overkills: Sequence[int] = ()) -> Side:
    """Return verdicts on as many defective as good castings; the numbered ones are wrong."""
    scores = [0.1 if at in escapes else 0.9 for at in range(castings)]
    scores += [0.9 if at in overkills else 0.1 for at in range(castings)]
    targets = np.repeat([1, 0], castings)
    parts = [f"{kind}{at:03}" for kind in "dg" for at in range(castings)]
    return measure(np.array(scores), targets, parts, HALF, COST)


def judged(
    challenger: Side, champion: Side | None, policy: Policy = POLICY, slices: Any = None
) -> dict[str, Check]:
    evidence = Evidence(100, challenger, champion, slices or {})
    return {item.name: item for item in judge(evidence, policy)}


def test_measure_judges_images_by_the_verdicts() -> None:
    scores, targets = np.array([0.9, 0.5, 0.4, 0.5, 0.1]), np.array([1, 1, 1, 0, 0])

    found = measure(scores, targets, [*"abcde"], HALF, COST)

    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found.judged.escaped.tolist() == [False, False, True, False, False]


def test_an_image_in_review_is_not_right() -> None:
    scores, targets = np.array([0.5, 0.5]), np.array([1, 0])

    assert measure(scores, targets, ["a", "b"], Verdicts(0.4, 0.6), COST).balanced_accuracy == 0.0


def test_a_class_without_images_has_no_balanced_accuracy() -> None:
    assert measure(np.ones(2), np.ones(2), ["a", "b"], HALF, COST).balanced_accuracy == 0.0


def test_an_equal_challenger_passes() -> None:
    assert not unmet(judged(side(40, [1], [2]), side(40, [1], [2])).values())


def test_the_first_champion_needs_floors_and_evidence_only() -> None:
    checks = judged(side(40, [1, 2], [3]), None)

    assert set(checks) == {"castings_ok", "castings_defect", "balanced_accuracy"}
    assert not unmet(checks.values())


def test_fewer_overkills_do_not_buy_escapes_beyond_the_margin() -> None:
    cheap_escapes = replace(POLICY, cost=replace(COST, escape=1.0))

    checks = judged(side(40, range(3)), side(40, [], range(20)), cheap_escapes)

    assert [item.name for item in unmet(checks.values())] == ["escapes"]
    assert checks["escapes"].state == "failed"


def test_a_dearer_challenger_fails_whatever_its_escapes() -> None:
    checks = judged(side(40, [], [1]), side(40))

    assert [item.name for item in unmet(checks.values())] == ["cost"]
    assert checks["cost"].value == pytest.approx(10_000 * 0.9 * 10 / 40)


def test_castings_too_few_to_show_the_margin_are_broken_evidence() -> None:
    checks = judged(side(20), side(20))

    assert checks["escapes"].state == "broken"
    assert "escapes: broken evidence, 0.1391, 9 more defective castings, needed 0.1" in explain(
        checks.values()
    )


def test_too_few_castings_are_broken_evidence() -> None:
    checks = judged(side(9), side(9))

    assert checks["castings_ok"].state == checks["castings_defect"].state == "broken"
    assert "escapes" not in checks
    assert "broken evidence, 9, needed 10" in explain(checks.values())


def test_a_lighting_in_which_more_castings_escape_has_a_veto() -> None:
    dark = np.arange(80) < 4
    slices = {"lighting dark": dark, "lighting lamp": ~dark}
    policy = replace(POLICY, escape_margin=1.0)

    found = judged(side(40, [0, 1]), side(40, [20, 21]), policy, slices)

    assert [item.name for item in unmet(found.values())] == ["slices"]
    assert found["slices"].value == "0.500 in lighting dark (4 defective castings)"


def test_castings_are_told_apart_by_lighting_and_by_kind_of_defect_where_known() -> None:
    rows = [
        replace(row, lighting=lighting, kinds=kinds)
        for row, lighting, kinds in zip(
            castings(2, 1, views=2),
            ["L1", "L1", "L2", "L2", "", ""],
            ["pit", "pit;scratch", "scratch", "", "", ""],
            strict=True,
        )
    ]
    parts = sorted({row.part for row in rows})

    found = slices_of(rows, parts)

    assert {name: [*np.array(parts)[inside]] for name, inside in found.items()} == {
        "defect kind pit": [rows[0].part],
        "defect kind scratch": sorted({rows[0].part, rows[2].part}),
        "lighting L1": [rows[0].part],
        "lighting L2": [rows[2].part],
        "lighting unnamed": [rows[4].part],
    }


@pytest.mark.parametrize(
    ("metrics", "state"),
    [
        ({"robustness": {"worst": {"balanced_accuracy": 0.7}}}, "passed"),
        ({"robustness": {"worst": {"balanced_accuracy": 0.3}}}, "failed"),
        ({"robustness": None}, "broken"),
        ({}, "broken"),
    ],
)
def test_the_worst_perturbation_has_a_floor(metrics: dict[str, Any], state: str) -> None:
    assert perturbation_check(metrics, 0.5).state == state


def test_a_verdict_later_than_the_takt_fails() -> None:
    assert latency_check(900.0, 1.0).state == "passed"
    assert latency_check(1100.0, 1.0).state == "failed"


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


@settings(deadline=None, max_examples=40)  # other programs may hold the CPU
@given(
    escapes=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    overkills=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
def test_what_passes_has_no_higher_cost_and_no_clearly_higher_escape_rate(
    escapes: tuple[int, int], overkills: tuple[int, int]
) -> None:
    challenger, champion = (
        side(40, range(e), range(o)) for e, o in zip(escapes, overkills, strict=True)
    )
    policy = replace(POLICY, floor=0.0)

    passed = not unmet(judged(challenger, champion, policy).values())

    worse = escapes[0] - escapes[1]
    dearer = 0.1 * 100 * worse + 0.9 * 10 * (overkills[0] - overkills[1])
    assert passed == (worse <= 0 and dearer <= 1e-9)
