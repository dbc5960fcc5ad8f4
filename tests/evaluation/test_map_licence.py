"""Which models may show heat maps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from zdm_ml.evaluation.map_licence import decide, read_licence
from zdm_ml.files import write_json


def figures(hits: int) -> dict[str, Any]:
    return {"hits": hits, "pointing": hits / 40, "pointing_low": 0.2, "pointing_high": 0.9}


@pytest.mark.parametrize(
    ("model", "random", "disc", "verdict", "said"),
    [
        (24, 2, 3, "licensed", "in 24 of 40 synthetic castings, 60.0% .*; the floor is 50%"),
        (20, 2, 3, "licensed", "in 20 of 40"),
        (19, 2, 3, "below_floor", "in 19 of 40 .* below the floor of 50%"),
        (0, 0, 0, "below_floor", "in 0 of 40"),
        (40, 20, 3, "broken", r"\(random\) points at the defect in 20 of 40 .* worthless"),
        (40, 2, 39, "broken", r"\(disc\) points at the defect in 39 of 40"),
        (0, 2, 39, "broken", r"\(disc\)"),
    ],
)
def test_a_model_is_licensed_at_a_floor_that_blind_maps_do_not_reach(
    model: int, random: int, disc: int, verdict: str, said: str
) -> None:
    blind = {"random": figures(random), "disc": figures(disc)}

    licence = decide(figures(model), blind, 40, 0.5, 0.95)

    assert (licence.verdict, licence.licensed) == (verdict, verdict == "licensed")
    assert re.search(said, licence.reason)


def saliency(folder: Path, **changes: Any) -> Path:
    path = folder / "saliency.json"
    write_json(path, {"verdict": "licensed", "reason": "good", "model_digest": "abc", **changes})
    return path


def test_a_licence_is_read_as_it_was_written(tmp_path: Path) -> None:
    licence = read_licence(saliency(tmp_path), "abc")

    assert (licence.licensed, licence.reason) == (True, "good")


@pytest.mark.parametrize(
    ("changes", "digest", "said"),
    [
        ({}, "abd", "saliency.json is of other weights"),
        ({"model_digest": None}, "abc", "of other weights"),
        ({"verdict": "fine"}, "abc", "holds no verdict"),
        ({"verdict": None, "licensed": True}, "abc", "holds no verdict"),
    ],
)
def test_figures_in_doubt_are_no_licence(
    tmp_path: Path, changes: dict[str, Any], digest: str, said: str
) -> None:
    licence = read_licence(saliency(tmp_path, **changes), digest)

    assert (licence.verdict, licence.licensed) == ("not_measured", False)
    assert said in licence.reason


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"\xff\xfe"])
def test_a_file_that_is_missing_or_damaged_is_no_licence(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "saliency.json"
    if content is not None:
        path.write_bytes(content)

    licence = read_licence(path, "abc")

    assert licence.verdict == "not_measured"
    assert "saliency.json" in licence.reason
