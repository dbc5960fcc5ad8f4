from typing import Any

from zdm_ml.evaluation.report import COLUMNS, leaderboard, markdown
from zdm_ml.evaluation.selection import Candidate, Selection, select


def evaluated(
    profile: str = "full", init: str = "official"
) -> tuple[Selection, list[dict[str, Any]]]:
    models = [
        Candidate("luna", 1, 2, 100, 1.4, 6 * 10**8, 0.97, 0.96, 0.4, "scratch", profile),
        Candidate("swin_t", 0, 2, 100, 0.4, 9 * 10**9, 0.98, 0.97, 0.6, init, profile),
    ]
    selection = select(models, min_models=1, failures={"vit_b_16": "the loss became nan"})
    figures = {
        model.model_name: {
            "escapes": model.escapes,
            "overkills": model.overkills,
            "cost": model.cost,
            "flops": model.flops,
            "init": model.init,
            "profile": model.profile,
            "accuracy": model.accuracy,
            "parameters": 115088,
            "confusion": "not a column",
        }
        for model in models
    }
    return selection, leaderboard(selection, figures)


def test_rows_have_the_same_keys_best_first() -> None:
    _, rows = evaluated()

    assert [tuple(row) for row in rows] == [COLUMNS] * 3
    assert [row["model_name"] for row in rows] == ["swin_t", "luna", "vit_b_16"]
    assert rows[2]["accuracy"] is None and rows[2]["reason"] == "not ranked: the loss became nan"


def test_page_names_winner_reasons_and_the_leak() -> None:
    selection, rows = evaluated()

    page = markdown(rows, selection, 0.2)

    assert "**Winner: swin_t has the lowest weighted cost, 0.4" in page
    assert "- **vit_b_16**: not ranked: the loss became nan" in page
    assert "a casting that was also trained on" in page
    assert "escapes + 0.2 x overkills" in page
    assert "115,088" in page


def test_table_is_rectangular() -> None:
    selection, rows = evaluated()

    table = [line for line in markdown(rows, selection, 0.2).splitlines() if line.startswith("|")]

    assert len(table) == 2 + 3
    assert len({line.count("|") for line in table}) == 1


def test_only_a_quick_or_smoke_model_is_a_demo() -> None:
    selection, rows = evaluated()
    demo_selection, demo_rows = evaluated(profile="quick")

    assert "demo" not in markdown(rows, selection, 0.2).lower()
    assert "swin_t (demo)" in markdown(demo_rows, demo_selection, 0.2)
    assert "Demo: trained with profile quick." in markdown(demo_rows, demo_selection, 0.2)


def test_models_from_scratch_are_named() -> None:
    selection, rows = evaluated(init="scratch")

    assert "without pretrained weights: swin_t, luna." in markdown(rows, selection, 0.2)


def test_no_winner_is_said_plainly() -> None:
    selection = select([], min_models=1, failures={"luna": "killed"})

    page = markdown(leaderboard(selection, {}), selection, 0.2)

    assert "**no model may be registered: 0 of 1 models were evaluated" in page
    assert "Winner" not in page
