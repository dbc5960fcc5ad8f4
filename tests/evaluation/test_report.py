"""The leaderboard's page for people."""

from __future__ import annotations

from typing import Any

import pytest
from candidates import POLICY, candidate, comparisons
from money import COST, PROMISE

from zdm_ml.evaluation.leaderboard import leaderboard
from zdm_ml.evaluation.report import markdown
from zdm_ml.evaluation.selection import Selection, select
from zdm_ml.evaluation.wording import casting_bounds, leak_warning


def evaluated(
    profile: str = "full", init: str = "official", leaky: bool = False, protocol: str = "grouped"
) -> tuple[Selection, list[dict[str, Any]]]:
    common: dict[str, Any] = {
        "profile": profile,
        "leaky": leaky,
        "accuracy": 0.97,
        "castings": 24,
        "escapes_castings": 0,
        "overkills_castings": 1,
    }
    models = [
        candidate("luna", 900, 5, init="scratch", **common),
        candidate("swin_t", 400, 90, init=init, **common),
    ]
    selection = select(
        models,
        policy=POLICY,
        compare=comparisons(models),
        failures={"vit_b_16": "the loss became nan"},
    )
    further = {
        "parameters": 115088,
        "defective_castings": 20,
        "good_castings": 4,
        "escape_rate_upper": 0.1391,
        "overkill_rate_upper": 0.7514,
        "confidence": 0.95,
        "accuracy_low": 0.91,
        "accuracy_high": 0.99,
        "seen_accuracy": 0.995,
        "worst_perturbation": "brightness_equalised",
        "worst_balanced_accuracy": 0.71,
        "protocol": protocol,
        "plant_precision": 0.8,
        "review_load": 0.02,
        "ok_below": 0.4,
        "defect_from": 0.4,
        "guarantee": "no guarantee: 292 more defective castings needed",
        "brier": 0.0512,
        "calibration_error": 0.03,
    }
    figures = {model.model_name: {**vars(model), **further} for model in models}
    return selection, leaderboard(selection, figures)


def page(**options: Any) -> str:
    selection, rows = evaluated(**options)
    return markdown(rows, selection, COST, PROMISE)


def test_page_names_winner_and_reasons() -> None:
    shown = page()

    assert "**Winner: swin_t has the lowest expected cost, 400 EUR per 10,000 parts" in shown
    assert "- **vit_b_16**: not ranked: the loss became nan" in shown
    assert "115,088" in shown


def test_page_says_what_the_castings_prove() -> None:
    assert (
        "**swin_t**: 0 of 20 defective castings escaped, at most 13.9% at 95 %;"
        " 1 of 4 good castings rejected, at most 75.1% at 95 %."
    ) in page()


def test_honest_and_seen_accuracy_stand_side_by_side_with_the_worst_case() -> None:
    (line,) = [line for line in page().splitlines() if "| swin_t |" in line and "99.50%" in line]

    assert "| 97.00% | 91.0% to 99.0% | 99.50% | brightness_equalised 71.0% |" in line


@pytest.mark.parametrize(
    ("protocol", "cause"),
    [
        ("shipped", "the shipped test images show castings that were also trained on"),
        ("kfold", r"castings stand on more than one side of the split (protocol kfold)"),
    ],
)
def test_leaky_figures_are_announced_before_all_others(protocol: str, cause: str) -> None:
    shown = page(leaky=True, protocol=protocol)

    assert f"> **LEAKY: {cause}." in shown
    assert shown.index("LEAKY: ") < shown.index("| # |")
    assert "| accuracy LEAKY |" in shown


def test_honest_figures_carry_no_warning() -> None:
    _, rows = evaluated()

    assert leak_warning(rows) is None
    assert "> **LEAKY" not in page() and "accuracy LEAKY" not in page()


def test_page_says_what_is_assumed_of_the_plant_and_what_a_claim_would_take() -> None:
    shown = page()

    assert "Assumed: 10.00% of the parts are defective; an escape costs 100 EUR" in shown
    assert "29 defective castings would have to pass without a miss" in shown
    assert "| 2 | luna | 900 | 80.0% | 2.0% | 0.0512 | 0.0300 |" in shown


def test_page_compares_every_model_with_the_one_of_lowest_cost() -> None:
    shown = page()

    assert "Beside swin_t, on the same castings:" in shown
    assert "| luna | 1 / 2 | 1.000 | 2.0% | 3.0% | 10 (-20 to 40) | 43 + 27 | not shown |" in shown


def test_every_table_is_rectangular() -> None:
    blocks = [block.splitlines() for block in page().split("\n\n") if block.startswith("|")]

    assert [len(block) for block in blocks] == [5, 5, 5, 3, 5]
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)
    assert max(block[0].count("|") for block in blocks) <= 11


def test_only_a_quick_or_smoke_model_is_a_demo() -> None:
    assert "demo" not in page().lower()
    assert "swin_t (demo)" in page(profile="quick")
    assert "Demo: trained with profile quick." in page(profile="quick")


def test_models_from_scratch_are_named() -> None:
    assert "without pretrained weights: swin_t, luna." in page(init="scratch")


def test_what_is_promised_or_missing_is_said_of_each_model_that_was_evaluated() -> None:
    shown = page()

    assert (
        "**swin_t, luna**: no guarantee: 292 more defective castings needed;"
        " the cost threshold decides." in shown
    )
    assert "vit_b_16**: no guarantee" not in shown


def test_a_class_without_castings_has_no_bound() -> None:
    _, rows = evaluated()

    shown = casting_bounds(
        {**rows[0], "good_castings": 0, "overkills_castings": 0, "overkill_rate_upper": None}
    )

    assert shown.endswith("; 0 of 0 good castings rejected")


def test_no_winner_is_said_plainly() -> None:
    selection = select([], policy=POLICY, compare=comparisons([]), failures={"luna": "killed"})

    shown = markdown(leaderboard(selection, {}), selection, COST, PROMISE)

    assert "**no model may be registered: 0 of 1 models were evaluated" in shown
    assert "Winner" not in shown
