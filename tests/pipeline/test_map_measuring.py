"""Heat maps in the stage `evaluate`: measured where asked for, drawn with what they are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
from registry_builders import make_castings, make_run

from zdm_ml.data.manifest import Row
from zdm_ml.evaluation.map_licence import MapLicence, read_licence
from zdm_ml.evaluation.verdicts import Verdicts
from zdm_ml.files import read_json, write_json
from zdm_ml.models.net import load_net
from zdm_ml.params import Params, SaliencyParams, load_params
from zdm_ml.pipeline.map_measuring import INDEX_FILE, Judge, draw_maps, measure_maps

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = SaliencyParams(
    castings=6, floor=0.5, tolerance=0.05, threshold=0.5, images=2, steps=3, maps=3
)
LICENSED = MapLicence("licensed", "they point at it")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """A run of one net that tells dark from bright, and its test images."""
    folder = tmp_path_factory.mktemp("maps")
    rows = make_castings(folder / "castings")
    make_run(folder, folder / "castings", rows)
    return folder, [row for row in rows if row.split == "test"]


@pytest.fixture
def params(project: Path) -> Params:
    return replace(load_params(project / "params.yaml"), saliency=FEW)


def judge(made: tuple[Path, list[Row]], params: Params, **changes: Any) -> Judge:
    wanted = replace(params, saliency=replace(params.saliency, **changes))
    return Judge(
        load_net(made[0] / "models" / "luna"), Verdicts(0.5, 0.5), wanted, made[0] / "castings"
    )


def test_figures_hold_the_model_and_both_blind_maps(
    made: tuple[Path, list[Row]], params: Params, tmp_path: Path
) -> None:
    asked = judge(made, params)

    figures = measure_maps(asked, made[1])

    measures = {"hits", "pointing", "pointing_low", "pointing_high", "iou", "iop"}
    measures |= {"deletion", "insertion"}
    assert measures <= set(figures)
    assert set(figures["baselines"]) == {"random", "disc"}
    assert all(set(blind) == measures for blind in figures["baselines"].values())
    assert (figures["castings"], figures["images"], figures["floor"]) == (6, 2, 0.5)
    assert figures["licensed"] == (figures["verdict"] == "licensed")
    # What is written is what a package is asked about.
    write_json(tmp_path / "saliency.json", figures)
    licence = read_licence(tmp_path / "saliency.json", asked.loaded.spec.digest)
    assert (licence.verdict, licence.reason) == (figures["verdict"], figures["reason"])


def test_measuring_again_gives_the_same_figures(
    made: tuple[Path, list[Row]], params: Params
) -> None:
    assert measure_maps(judge(made, params), made[1]) == measure_maps(judge(made, params), made[1])


def test_a_floor_that_blind_maps_reach_is_broken(
    made: tuple[Path, list[Row]], params: Params
) -> None:
    figures = measure_maps(judge(made, params, tolerance=0.9), made[1])

    assert (figures["verdict"], figures["licensed"]) == ("broken", False)
    assert "worthless" in figures["reason"]


def test_no_castings_means_not_measured(made: tuple[Path, list[Row]], params: Params) -> None:
    figures = measure_maps(judge(made, params, castings=0), made[1])

    assert (figures["verdict"], figures["licensed"]) == ("not_measured", False)


def test_without_test_defects_what_needs_none_is_measured(
    made: tuple[Path, list[Row]], params: Params
) -> None:
    good = [row for row in made[1] if row.label == "ok"]

    figures = measure_maps(judge(made, params), good)

    assert (figures["images"], figures["deletion"]) == (0, None)
    assert figures["pointing"] is not None


def drawn(
    made: tuple[Path, list[Row]], params: Params, folder: Path, licence: MapLicence = LICENSED
) -> dict[str, Any]:
    scores = {row.path: 0.75 for row in made[1]}
    draw_maps(judge(made, params), made[1], scores, licence, folder)
    index: dict[str, Any] = read_json(folder / INDEX_FILE)
    return index


def test_a_few_defects_are_drawn_and_listed(
    made: tuple[Path, list[Row]], params: Params, tmp_path: Path
) -> None:
    index = drawn(made, params, tmp_path / "maps")

    files = {entry["file"] for entry in index["maps"]}
    assert len(files) == 3
    assert files | {INDEX_FILE} == {path.name for path in (tmp_path / "maps").iterdir()}
    assert all(entry["path"].startswith("test/defect/") for entry in index["maps"])
    assert {(entry["score"], entry["verdict"]) for entry in index["maps"]} == {(0.75, "defect")}
    assert all(cv2.imread(str(tmp_path / "maps" / file)) is not None for file in files)


def test_maps_without_a_licence_are_listed_as_such_and_marked(
    made: tuple[Path, list[Row]], params: Params, tmp_path: Path
) -> None:
    refused = MapLicence("below_floor", "they point beside it")

    index = drawn(made, params, tmp_path / "refused", refused)
    licensed = drawn(made, params, tmp_path / "licensed")

    assert (index["licensed"], index["reason"]) == (False, "they point beside it")
    for entry in licensed["maps"]:
        name = entry["file"]
        marked, plain = (tmp_path / side / name for side in ("refused", "licensed"))
        assert marked.read_bytes() != plain.read_bytes()


def test_maps_of_an_earlier_evaluation_do_not_stay(
    made: tuple[Path, list[Row]], params: Params, tmp_path: Path
) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "old.png").write_bytes(b"old")

    drawn(made, params, tmp_path / "maps")

    assert not (tmp_path / "maps" / "old.png").exists()
