import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zdm_ml.errors import DataError
from zdm_ml.evaluation.selection import Candidate, select


def candidate(name: str, escapes: int = 0, overkills: int = 0, flops: int = 10**9) -> Candidate:
    cost = round(escapes + 0.2 * overkills, 9)
    return Candidate(
        model_name=name,
        escapes=escapes,
        overkills=overkills,
        images=100,
        cost=cost,
        flops=flops,
        accuracy=0.9,
        balanced_accuracy=0.9,
        threshold=0.5,
        init="official",
        profile="full",
        castings=12,
        escapes_castings=min(escapes, 1),
        overkills_castings=0,
        leaky=False,
    )


def test_select_prefers_the_lowest_cost() -> None:
    selection = select([candidate("a", 2), candidate("b", 1, 4), candidate("c", 3)], min_models=1)

    assert selection.winner == "b"
    assert selection.eligible
    assert [row["model_name"] for row in selection.rows] == ["b", "a", "c"]
    assert [row["rank"] for row in selection.rows] == [1, 2, 3]


def test_select_prefers_the_cheapest_tied_model() -> None:
    models = [candidate("big", 1, 0, 4 * 10**9), candidate("small", 0, 5, 10**9)]

    selection = select(models, min_models=1)

    assert selection.winner == "small"
    assert "cheapest of those tied (big)" in selection.reason
    assert "needs 4 GFLOPs against 1 GFLOPs" in selection.rows[1]["reason"]


def test_full_ties_go_by_name() -> None:
    selection = select([candidate("b"), candidate("a")], min_models=1)

    assert selection.winner == "a"
    assert "comes after it by name" in selection.rows[1]["reason"]


def test_every_reason_carries_its_figures() -> None:
    selection = select([candidate("a", 2), candidate("b", 1)], min_models=1)

    assert selection.rows[0]["reason"].endswith(
        "1 (1 escape, 0 overkills of 100 images; 1 escape, 0 overkills of 12 castings)"
    )
    assert selection.rows[1]["reason"] == (
        "costs 1 more than b: 2 (2 escapes, 0 overkills of 100 images;"
        " 1 escape, 0 overkills of 12 castings)"
    )


def test_failed_and_missing_models_are_listed_with_their_reason() -> None:
    selection = select(
        [candidate("a")],
        min_models=1,
        failures={"b": "the loss became nan"},
        requested=["a", "b", "c"],
    )

    assert selection.rows[1:] == [
        {"rank": None, "model_name": "b", "reason": "not ranked: the loss became nan"},
        {"rank": None, "model_name": "c", "reason": "not ranked: it was not evaluated"},
    ]
    assert "1 of 3 models were evaluated; missing: b, c" in selection.reason


def test_too_few_models_may_not_register() -> None:
    selection = select([candidate("a")], min_models=2, failures={"b": "killed"})

    assert not selection.eligible
    assert selection.winner == "a"
    assert selection.reason == (
        "no model may be registered: 1 of 2 models were evaluated; missing: b, at least 2 must be"
    )


def test_no_model_at_all_has_no_winner() -> None:
    selection = select([], min_models=1, failures={"a": "killed"})

    assert (selection.winner, selection.eligible) == (None, False)


@pytest.mark.parametrize("other", [{"images": 99}, {"castings": 11}])
def test_models_judged_on_different_castings_are_refused(other: dict[str, int]) -> None:
    with pytest.raises(DataError, match="different test sets"):
        select([candidate("a"), replace(candidate("b"), **other)], min_models=1)


def test_leaky_figures_are_never_ranked_beside_honest_ones() -> None:
    with pytest.raises(DataError, match=r"leaky and honest .* \(leaky: b\)"):
        select([candidate("a"), replace(candidate("b"), leaky=True)], min_models=1)


def test_the_reason_of_leaky_figures_says_so() -> None:
    selection = select([replace(candidate("a"), leaky=True)], min_models=1)

    assert "of 12 castings, LEAKY)" in selection.reason


def test_a_model_named_twice_is_refused() -> None:
    with pytest.raises(DataError, match="twice"):
        select([candidate("a"), candidate("a")], min_models=1)


def test_selection_can_be_written_as_json() -> None:
    value = select([candidate("a")], min_models=1, failures={"b": "x"}).as_dict()

    assert json.loads(json.dumps(value)) == value


@settings(deadline=None)  # other programs may hold the CPU
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(1, 3)), min_size=1, max_size=8
    ),
    st.randoms(use_true_random=False),
)
def test_order_of_candidates_does_not_matter(figures, random) -> None:
    models = [candidate(f"m{i}", *figure) for i, figure in enumerate(figures)]
    shuffled = models.copy()
    random.shuffle(shuffled)

    selection = select(models, min_models=1)

    assert select(shuffled, min_models=1) == selection
    best = min(model.cost for model in models)
    assert next(m for m in models if m.model_name == selection.winner).cost == best
