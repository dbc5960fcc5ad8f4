from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import pytest
from registry_builders import make_castings, make_run
from typer.testing import CliRunner, Result

from zdm_ml.cli import app
from zdm_ml.errors import DataError, PackageError
from zdm_ml.files import read_json, write_json
from zdm_ml.registry.assembly import assemble

pytestmark = pytest.mark.usefixtures("in_project", "one_thread")

SAID = "the heat maps point at the defect in 12 of 60 synthetic castings, below the floor of 50%"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Castings, a run, and packages of its net: licensed, below the floor, never measured."""
    folder = tmp_path_factory.mktemp("explain")
    rows = make_castings(folder / "castings")
    source = make_run(folder / "run", folder / "castings", rows)
    digest = read_json(folder / "run" / "models" / "luna" / "net.json")["digest"]
    licensed = {"verdict": "licensed", "reason": "they point at it", "model_digest": digest}
    below: dict[str, Any] = {**licensed, "verdict": "below_floor", "reason": SAID}
    for name, figures in (("licensed", licensed), ("below", below), ("unmeasured", None)):
        evaluation = Path(
            shutil.copytree(folder / "run" / "evaluation" / "luna", folder / "evaluation" / name)
        )
        if figures:
            write_json(evaluation / "saliency.json", figures)
        assemble(
            folder / name,
            model=folder / "run" / "models" / "luna",
            evaluation=evaluation,
            rows=rows,
            castings=folder / "castings",
            source=source,
        )
    return folder


@pytest.fixture
def image(folder: Path) -> Path:
    return folder / "castings" / "test" / "defect" / "0.png"


def explain(model: Path, *arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, arguments), "--model", str(model)])


def test_a_licensed_model_draws_what_it_sees(folder: Path, image: Path, tmp_path: Path) -> None:
    result = explain(folder / "licensed", image, "--out", tmp_path / "map.png")

    assert result.exit_code == 0
    assert result.stderr.startswith("defect, score ")
    shown = cv2.imread(str(tmp_path / "map.png"))
    assert shown is not None
    assert shown.shape[1] == 480


def test_a_model_below_the_floor_is_refused_with_score_and_floor(
    folder: Path, image: Path, tmp_path: Path
) -> None:
    result = explain(folder / "below", image, "--out", tmp_path / "map.png")

    assert isinstance(result.exception, PackageError)
    assert SAID in str(result.exception)
    assert "--anyway" in str(result.exception)
    assert not (tmp_path / "map.png").exists()


def test_a_package_that_was_never_measured_is_refused(
    folder: Path, image: Path, tmp_path: Path
) -> None:
    result = explain(folder / "unmeasured", image, "--out", tmp_path / "map.png")

    assert isinstance(result.exception, PackageError)
    assert "were not measured" in str(result.exception)


@pytest.mark.parametrize("name", ["below", "unmeasured"])
def test_anyway_draws_it_with_a_mark(folder: Path, image: Path, tmp_path: Path, name: str) -> None:
    plain, marked = tmp_path / "plain.png", tmp_path / "marked.png"

    explain(folder / "licensed", image, "--out", plain)
    result = explain(folder / name, image, "--out", marked, "--anyway")

    assert result.exit_code == 0
    assert marked.read_bytes() != plain.read_bytes()


@pytest.mark.parametrize("content", [None, b"no image"])
def test_an_image_that_cannot_be_read_is_named(
    folder: Path, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "part.png"
    if content:
        path.write_bytes(content)

    result = explain(folder / "licensed", path, "--out", tmp_path / "map.png")

    assert isinstance(result.exception, DataError)
    assert "part.png" in str(result.exception)
    assert not (tmp_path / "map.png").exists()
