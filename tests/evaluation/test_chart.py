import io
from typing import Any

import pytest
from PIL import Image

from zdm_ml.evaluation.chart import chart, pareto


def row(name: str, p50_ms: float, cost: float, rank: int | None = 1) -> dict[str, Any]:
    values = {"escapes": 1, "overkills": 2, "profile": "full"}
    return {"model_name": name, "p50_ms": p50_ms, "cost": cost, "rank": rank, **values}


ROWS = [row("a", 10.0, 5), row("b", 20.0, 5), row("c", 30.0, 2), row("d", 90.0, 2.5)]


def test_front_holds_the_models_that_none_beats_in_both() -> None:
    assert [each["model_name"] for each in pareto(ROWS)] == ["a", "c"]


@pytest.mark.parametrize(
    "rows", [ROWS, ROWS[:1], [], [row("a", 0, 1, rank=None)], [row("a", 10.0, 0)]]
)
def test_chart_is_a_picture_whatever_was_evaluated(rows: list[dict[str, Any]]) -> None:
    picture = Image.open(io.BytesIO(chart(rows, "a", "EUR")), formats=("PNG",))

    picture.load()
    assert picture.size == (1080, 660)


def test_same_rows_give_the_same_bytes() -> None:
    assert chart(ROWS, "c", "EUR") == chart(ROWS, "c", "EUR")
