import io
from typing import Any

import pytest
from PIL import Image

from zdm_ml.evaluation.chart import chart, pareto


def row(name: str, flops: float, cost: float, rank: int | None = 1) -> dict[str, Any]:
    values = {"escapes": 1, "overkills": 2, "profile": "full"}
    return {"model_name": name, "flops": flops, "cost": cost, "rank": rank, **values}


ROWS = [row("a", 1e9, 5), row("b", 2e9, 5), row("c", 3e9, 2), row("d", 9e9, 2.5)]


def test_front_holds_the_models_that_none_beats_in_both() -> None:
    assert [each["model_name"] for each in pareto(ROWS)] == ["a", "c"]


@pytest.mark.parametrize(
    "rows", [ROWS, ROWS[:1], [], [row("a", 0, 1, rank=None)], [row("a", 1e9, 0)]]
)
def test_chart_is_a_picture_whatever_was_evaluated(rows: list[dict[str, Any]]) -> None:
    picture = Image.open(io.BytesIO(chart(rows, "a", 0.2)), formats=("PNG",))

    picture.load()
    assert picture.size == (1080, 660)


def test_same_rows_give_the_same_bytes() -> None:
    assert chart(ROWS, "c", 0.2) == chart(ROWS, "c", 0.2)
