"""What a version's model card admits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from registry_builders import METRICS, assembled, make_castings, make_run

from zdm_ml.data.manifest import Row


def card(folder: Path, profile: str = "full", rows: list[Row] | None = None, **figures: Any) -> str:
    """Return the card of a package whose metrics.json has `figures`."""
    found = make_castings(folder / "castings")
    source = make_run(
        folder, folder / "castings", found, profile=profile, metrics={**METRICS, **figures}
    )
    package = assembled(
        folder / "package", folder, folder / "castings", rows if rows is not None else found, source
    )
    return (package.folder / "MODEL_CARD.md").read_text()


def test_an_honest_card_names_protocol_and_bounds(tmp_path: Path) -> None:
    shown = card(tmp_path)

    assert "Not leaky: split protocol `grouped`" in shown
    assert "- 0 of 12 defective castings escaped, at most 22.1% at 95 %" in shown
    assert "- 0 of 12 good castings rejected\n" in shown
    assert "`blur`, balanced accuracy 0.7500, 6 escapes in 24 images" in shown


def test_the_card_says_what_the_model_costs_at_the_plant(tmp_path: Path) -> None:
    decision = {
        "prevalence": 0.05,
        "currency": "EUR",
        "cost": 31666.7,
        "precision": 0.136,
        "review_load": 0.02,
    }

    shown = card(tmp_path, decision=decision)

    assert (
        "At the plant, where 5.00% of the parts are defective: 31,667 EUR per 10,000 parts, 2.0% to"
        " review, precision of `defect` 13.6%."
    ) in shown


def test_a_leaky_card_says_so(tmp_path: Path) -> None:
    shown = card(tmp_path, leaky=True, protocol="shipped")

    assert "**LEAKY:** split protocol `shipped`" in shown
    assert "Not leaky" not in shown


def test_castings_on_both_sides_are_a_leak_whatever_the_figures_say(tmp_path: Path) -> None:
    rows = make_castings(tmp_path / "castings")
    test = next(row for row in rows if row.split == "test")

    shown = card(tmp_path, rows=[*rows, test.assigned("train")])

    assert "**LEAKY:**" in shown


@pytest.mark.parametrize("figures", [{"leaky": None}, {"leaky": None, "by_casting": None}])
def test_figures_that_do_not_say_are_unknown(tmp_path: Path, figures: dict[str, Any]) -> None:
    assert "**Unknown:**" in card(tmp_path, **figures)
