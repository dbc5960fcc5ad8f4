"""Which model wins, and what is said of the others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from candidates import POLICY, candidate, comparisons
from hypothesis import given, settings
from hypothesis import strategies as st

from zdm_ml.errors import DataError
from zdm_ml.evaluation.lead import Candidate, Policy, lead_of
from zdm_ml.evaluation.selection import Selection, select


def chosen(
    models: Sequence[Candidate],
    shown: Sequence[str] = (),
    policy: Policy = POLICY,
    figures: dict[str, Any] | None = None,
    **options: Any,
) -> Selection:
    return select(
        models, policy=policy, compare=comparisons(models, shown, **(figures or {})), **options
    )


def reasons(selection: Selection) -> dict[str, str]:
    return {row["model_name"]: row["reason"] for row in selection.rows}


def test_the_lowest_expected_cost_wins_while_no_cheaper_model_is_shown_to_be_as_good() -> None:
    models = [candidate("big", 100, 50), candidate("small", 120, 5), candidate("worse", 300, 60)]

    selection = chosen(models)

    assert (selection.winner, selection.reference) == ("big", "big")
    assert [row["model_name"] for row in selection.rows] == ["big", "small", "worse"]
    assert [row["rank"] for row in selection.rows] == [1, 2, 3]
    assert "no cheaper model is shown to be as good" in selection.reason


def test_the_cheapest_model_that_is_shown_not_to_be_worse_takes_its_place() -> None:
    models = [candidate("big", 100, 50), candidate("mid", 90, 60), candidate("small", 120, 5)]

    selection = chosen(models, shown=["big", "small"])

    assert (selection.winner, selection.reference) == ("small", "mid")
    assert [row["model_name"] for row in selection.rows] == ["small", "mid", "big"]
    assert (
        "is the cheapest model shown not to be worse than mid: 5 ms against 60 ms; escape rate at"
        " most 2 points and overkill rate at most 3 points higher, cost at most 40 EUR higher"
    ) in selection.reason
    assert (
        "but small is shown not to be worse and takes 5 ms instead of 60 ms"
        in reasons(selection)["mid"]
    )
    assert reasons(selection)["big"].endswith(
        "shown not to be worse, but not the cheapest such model"
    )


def test_undecidable_is_not_non_inferior_and_says_what_is_missing() -> None:
    selection = chosen([candidate("big", 100, 50), candidate("small", 120, 5)])

    assert reasons(selection)["small"].endswith(
        "cheaper, but not shown to be as good: undecidable, 43 more defective castings and 27 more"
        " good castings are needed"
    )


def test_a_cheaper_model_whose_cost_may_be_too_high_is_not_taken() -> None:
    figures = {"defective_missing": 0, "good_missing": 0, "cost_difference_high": 250.0}

    selection = chosen([candidate("big", 100, 50), candidate("small", 120, 5)], figures=figures)

    assert "it may cost 250 EUR more, the margin is 100" in reasons(selection)["small"]


def test_policy_lowest_cost_takes_no_cheaper_model() -> None:
    models = [candidate("big", 100, 50), candidate("small", 120, 5)]

    selection = chosen(models, shown=["small"], policy=replace(POLICY, name="lowest_cost"))

    assert selection.winner == "big"
    assert "no cheaper model" not in selection.reason


@pytest.mark.parametrize("unlike", ["p50_ms", "flops", "size_bytes"])
def test_ties_in_cost_go_to_what_takes_less(unlike: str) -> None:
    models = [
        replace(candidate("a", 7), **{unlike: 20}),
        replace(candidate("b", 7), **{unlike: 10}),
    ]
    if unlike != "p50_ms":
        models = [replace(model, p50_ms=10.0) for model in models]

    selection = chosen(models)

    assert selection.winner == "b"
    assert "is the cheapest of those tied (a)" in selection.reason


def test_full_ties_go_by_name() -> None:
    assert chosen([candidate("b"), candidate("a")]).winner == "a"


def test_a_model_slower_than_the_takt_is_out_of_the_contest() -> None:
    models = [candidate("slow", 10, 600), candidate("fast", 90, 5)]

    selection = chosen(models)

    assert selection.winner == "fast"
    assert selection.rows[1]["reason"] == (
        "is out of the contest: p99 of 1.2e+03 ms, the takt allows 1e+03 ms"
    )


def test_a_model_too_large_is_out_even_if_it_is_not_worse() -> None:
    models = [candidate("big", 10, 50), replace(candidate("huge", 20, 5), size_bytes=10**9)]

    selection = chosen(models, shown=["huge"], policy=replace(POLICY, max_bytes=1e8))

    assert selection.winner == "big"
    assert "1e+03 MB, allowed are 100 MB" in reasons(selection)["huge"]


def test_no_model_within_the_limits_is_not_eligible() -> None:
    selection = chosen([candidate("slow", 10, 600)])

    assert (selection.winner, selection.eligible) == (None, False)
    assert "none keeps takt and size limits" in selection.reason


def test_every_reason_carries_its_figures() -> None:
    selection = chosen([candidate("a", 100), candidate("b", 250, 20)])

    assert (
        "100 EUR per 10,000 parts (1 escape, 2 overkills of 100 images; 1 escape, 0 overkills of"
        " 12 castings)"
    ) in reasons(selection)["a"]
    assert reasons(selection)["b"].startswith("costs 150 EUR more than a: 250 EUR per 10,000 parts")


def test_failed_and_missing_models_are_listed_with_their_reason() -> None:
    selection = chosen(
        [candidate("a")], failures={"b": "the loss became nan"}, requested=["a", "b", "c"]
    )

    assert selection.rows[1:] == [
        {"rank": None, "model_name": "b", "reason": "not ranked: the loss became nan"},
        {"rank": None, "model_name": "c", "reason": "not ranked: it was not evaluated"},
    ]
    assert "1 of 3 models were evaluated; missing: b, c" in selection.reason


def test_too_few_models_may_not_register() -> None:
    selection = chosen(
        [candidate("a")], policy=replace(POLICY, min_models=2), failures={"b": "killed"}
    )

    assert not selection.eligible
    assert selection.winner == "a"
    assert selection.reason == (
        "no model may be registered: 1 of 2 models were evaluated; missing: b, at least 2 must be"
    )


def test_no_model_at_all_has_no_winner() -> None:
    selection = chosen([], failures={"a": "killed"})

    assert (selection.winner, selection.eligible, selection.comparisons) == (None, False, [])


@pytest.mark.parametrize("other", [{"images": 99}, {"castings": 11}])
def test_models_judged_on_different_castings_are_refused(other: dict[str, int]) -> None:
    with pytest.raises(DataError, match="different test sets"):
        chosen([candidate("a"), replace(candidate("b"), **other)])


def test_leaky_figures_are_never_ranked_beside_honest_ones() -> None:
    with pytest.raises(DataError, match=r"leaky and honest .* \(leaky: b\)"):
        chosen([candidate("a"), replace(candidate("b"), leaky=True)])


def test_the_reason_of_leaky_figures_says_so() -> None:
    assert "of 12 castings, LEAKY)" in chosen([replace(candidate("a"), leaky=True)]).reason


def test_a_model_named_twice_is_refused() -> None:
    with pytest.raises(DataError, match="twice"):
        chosen([candidate("a"), candidate("a")])


def test_selection_can_be_written_as_json() -> None:
    value = chosen([candidate("a"), candidate("c")], failures={"b": "x"}).as_dict()

    assert json.loads(json.dumps(value)) == value


@settings(deadline=None)  # other programs may hold the CPU
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 3), st.booleans()), min_size=1, max_size=8
    ),
    st.randoms(use_true_random=False),
)
def test_order_of_candidates_does_not_matter(figures: list[Any], random: Any) -> None:
    models = [candidate(f"m{i}", cost, ms) for i, (cost, ms, _) in enumerate(figures)]
    shown = [f"m{i}" for i, (_, _, good) in enumerate(figures) if good]
    shuffled = models.copy()
    random.shuffle(shuffled)

    selection = chosen(models, shown)

    other = chosen(shuffled, shown)
    assert (other.winner, other.reason, other.rows) == (
        selection.winner,
        selection.reason,
        selection.rows,
    )
    by_name = {model.model_name: model for model in models}
    winner, best = by_name[selection.winner or ""], min(model.cost for model in models)
    assert winner.cost == best or winner.model_name in shown


def test_a_lead_inside_the_spread_between_seeds_is_none() -> None:
    models = [candidate("big", 100, 50), candidate("small", 120, 5)]
    seeds = {"big": [100, 180, 60], "small": [120, 70, 150]}

    selection = chosen(models, seeds=seeds)

    assert (selection.reference, selection.winner) == ("small", "small")
    assert "over 3 seeds big and small differ by 0" in selection.reason
    assert "costs 20 EUR less than small, but over 3 seeds" in reasons(selection)["big"]


def test_a_lead_outside_the_spread_stays() -> None:
    models = [candidate("big", 100, 50), candidate("small", 300, 5)]
    seeds = {"big": [100, 110, 105], "small": [300, 310, 290]}

    assert chosen(models, seeds=seeds).winner == "big"


def test_seeds_that_could_not_be_trained_are_named() -> None:
    models = [candidate("big", 100, 50), candidate("small", 120, 5)]

    selection = chosen(models, seeds={"big": [100], "small": [120, 125]})

    assert selection.winner == "big"
    assert "no other seed of big could be trained" in selection.reason


def test_seeds_may_turn_the_order_round() -> None:
    models = [candidate("lucky", 100, 5), candidate("steady", 120, 50)]
    seeds = {"lucky": [100, 500, 480], "steady": [120, 125, 118]}

    selection = chosen(models, seeds=seeds)

    assert selection.reference == "steady"
    assert "the order is the other way round" in selection.reason


def test_without_other_seeds_the_lead_stays_as_it_is() -> None:
    models = [candidate("big", 100, 50), candidate("small", 120, 5)]

    lead = lead_of(models, POLICY, {})

    assert lead is not None and lead.second is not None
    assert (lead.reference.model_name, lead.second.model_name, lead.doubt) == ("big", "small", "")
