"""The stages `evaluate` and `select` on small castings: what they write, honest and leaky."""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from registry_builders import make_castings, make_run

from zdm_ml.data.listing import Entry, write_listing
from zdm_ml.data.manifest import Row, write_manifest
from zdm_ml.evaluation.robustness import perturbations
from zdm_ml.files import read_json, sha256_file, write_json
from zdm_ml.pipeline.compare_stages import select
from zdm_ml.pipeline.evaluate_stage import evaluate
from zdm_ml.pipeline.profiles import run_params
from zdm_ml.pipeline.stages import Context
from zdm_ml.settings import load_settings

pytestmark = pytest.mark.usefixtures("one_thread")


def in_castings(rows: list[Row]) -> list[Row]:
    """Give two images each to a casting, as views of it."""
    named = []
    for row in rows:
        number = int(Path(row.path).stem) // 2
        named.append(replace(row, part=f"{row.split}-{row.label}-{number}"))
    return named


def prepared(root: Path, project: Path) -> Path:
    shutil.copy(project / "dvc.yaml", root)
    text = run_params(
        (project / "params.yaml").read_text(), project, profile="smoke", models=["luna"]
    )
    (root / "params.yaml").write_text(text.replace("holdout_limit: 24", "holdout_limit: 6"))
    return root


def with_rows(root: Path) -> list[Row]:
    """Make images, a net and rows whose castings never cross the split."""
    folder = root / "data" / "castings"
    made = in_castings(make_castings(folder))
    write_listing(
        root / "data" / "castings.csv",
        (
            Entry(row.path, sha256_file(path), path.stat().st_size, row.part, False, row.split)
            for row in made
            if (path := folder / row.path)
        ),
    )
    make_run(root, root / "data" / "castings", made, profile="smoke")
    return made


@pytest.fixture
def root(tmp_path: Path, project: Path) -> Path:
    return prepared(tmp_path, project)


@pytest.fixture
def rows(root: Path) -> list[Row]:
    return with_rows(root)


@dataclass(frozen=True)
class Evaluated:
    rows: list[Row]
    figures: dict[str, Any]
    outs: Path


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Evaluated:
    """An evaluation under protocol grouped."""
    root = prepared(tmp_path_factory.mktemp("honest"), project)
    rows = with_rows(root)
    return Evaluated(rows, run(root, rows), root / "evaluation" / "luna")


def run(root: Path, rows: list[Row], *, protocol: str = "grouped") -> dict[str, Any]:
    params = root / "params.yaml"
    params.write_text(params.read_text().replace("protocol: grouped", f"protocol: {protocol}"))
    write_manifest(root / "manifest" / "split.csv", rows)
    return evaluate(context(root), "luna")


def context(root: Path) -> Context:
    return Context(load_settings({"ZDM_ROOT": str(root), "ZDM_HOME": str(root / "home")}))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_figures_count_images_and_castings(honest: Evaluated) -> None:
    figures = honest.figures

    assert figures == read_json(honest.outs / "metrics.json")
    assert (figures["images"], figures["by_casting"]["castings"]) == (24, 12)
    assert figures["by_casting"]["escape_rate_upper"] == pytest.approx(1 - 0.05 ** (1 / 6))
    assert figures["intervals"]["per_image"]["accuracy_low"] == 1.0
    assert (figures["leaky"], figures["protocol"], figures["seen"]) == (False, "grouped", None)


def test_every_perturbation_is_measured_on_a_sample(honest: Evaluated) -> None:
    found = honest.figures["robustness"]

    assert set(found["perturbations"]) == {"none", *perturbations(0)}
    assert (found["images"], found["castings"]) == (12, 12)
    lines = table(honest.outs / "robustness.csv")
    assert [line["perturbation"] for line in lines] == list(found["perturbations"])


def test_castings_have_a_table_of_their_own(honest: Evaluated) -> None:
    lines = table(honest.outs / "castings.csv")

    tested = {row.part for row in honest.rows if row.split == "test"}
    assert [line["part"] for line in lines] == sorted(tested)
    assert {line["images"] for line in lines} == {"2"}
    assert {line["failed"] for line in lines} == {"0"}


def test_profile_smoke_measures_no_heat_maps_and_says_so(honest: Evaluated) -> None:
    figures = read_json(honest.outs / "saliency.json")

    assert (figures["verdict"], figures["licensed"]) == ("not_measured", False)
    assert read_json(honest.outs / "maps" / "index.json")["maps"] == []


def test_heat_maps_are_measured_and_drawn_where_params_say_so(root: Path, rows: list[Row]) -> None:
    params = root / "params.yaml"
    text = params.read_text().replace("  castings: 0\n", "  castings: 4\n")
    params.write_text(text.replace("  images: 0\n", "  images: 1\n"))
    params.write_text(params.read_text().replace("  maps: 0\n", "  maps: 2\n"))

    run(root, rows)

    out = root / "evaluation" / "luna"
    figures, index = read_json(out / "saliency.json"), read_json(out / "maps" / "index.json")
    assert (figures["castings"], figures["images"]) == (4, 1)
    assert figures["model_digest"] == read_json(root / "models" / "luna" / "net.json")["digest"]
    assert len(index["maps"]) == 2
    assert index["licensed"] is figures["licensed"]


def test_images_of_castings_in_train_stand_beside_as_leaky(root: Path, rows: list[Row]) -> None:
    train = {row.label: row.part for row in rows if row.split == "train"}
    seen = [
        replace(row, part=train[row.label], split="")
        for row in rows
        if row.split == "test" and row.path.endswith(("0.png", "1.png", "2.png", "3.png"))
    ]
    others = [row for row in rows if row.path not in {each.path for each in seen}]

    figures = run(root, [*others, *seen])

    assert figures["leaky"] is False
    assert figures["seen"]["leaky"] is True
    # Eight or more such images, and a limit of six.
    assert (figures["seen"]["images"], figures["seen"]["castings"]) == (6, 2)


def test_a_casting_on_two_sides_makes_every_figure_leaky(root: Path, rows: list[Row]) -> None:
    train = next(row.part for row in rows if row.split == "train" and row.label == "ok")
    test = next(row for row in rows if row.split == "test" and row.label == "ok")
    crossed = [replace(row, part=train) if row is test else row for row in rows]

    figures = run(root, crossed)

    assert (figures["leaky"], figures["leaking_castings"]) == (True, 1)


def test_the_shipped_split_is_leaky_whatever_the_parts_say(root: Path, rows: list[Row]) -> None:
    figures = run(root, rows, protocol="shipped")

    assert (figures["leaky"], figures["leaking_castings"]) == (True, 0)


def test_without_calibration_castings_val_is_cross_fitted(root: Path, rows: list[Row]) -> None:
    three_way = [replace(row, split="val") if row.split == "calibration" else row for row in rows]

    run(root, three_way)

    decision = read_json(root / "evaluation" / "luna" / "decision.json")
    assert decision["calibration"]["source"] == "val, cross-fitted"
    assert decision["calibration"]["castings"] == 6


def test_the_leaderboard_carries_castings_leak_and_worst_case(root: Path, rows: list[Row]) -> None:
    run(root, rows, protocol="shipped")
    timing = {"p50_ms": 1.0, "p99_ms": 2.0, "flops": 10**8, "parameters": 9, "size_bytes": 9}
    write_json(root / "reports" / "latency.json", {"luna": timing})
    write_json(root / "reports" / "confirm.json", {"seeds": 1, "costs": {}})

    _, page = select(context(root))

    (row,) = read_json(root / "reports" / "leaderboard.json")
    assert (row["leaky"], row["protocol"], row["castings"]) == (True, "shipped", 12)
    assert row["worst_perturbation"] in perturbations(0)
    assert "0 of 6 defective castings escaped, at most 39.3% at 95 %" in page
    assert "> **LEAKY: the shipped test images show castings" in page
