import json
from pathlib import Path

import pytest
from registry_builders import assembled, make_castings, make_run
from typer.testing import CliRunner, Result

from zdm_ml.cli import app
from zdm_ml.errors import DataError

pytestmark = pytest.mark.usefixtures("in_project")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Castings and a package that judges them right."""
    folder = tmp_path_factory.mktemp("predict")
    rows = make_castings(folder / "castings")
    source = make_run(folder / "run", folder / "castings", rows)
    assembled(folder / "package", folder / "run", folder / "castings", rows, source)
    return folder


def predict(folder: Path, *arguments: str | Path) -> Result:
    model = ["--model", str(folder / "package")]
    return CliRunner().invoke(app, ["predict", *map(str, arguments), *model])


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_json_gives_one_line_with_the_agreed_keys_per_image(folder: Path) -> None:
    result = predict(folder, folder / "castings" / "test", "--json")

    found = lines(result)
    assert result.exit_code == 0
    assert len(found) == 24
    assert all(
        set(line)
        == {
            *("path", "verdict", "score", "threshold", "model_version"),
            *("ok_below", "defect_from", "guarantee"),
        }
        for line in found
    )


def test_folders_are_walked_and_verdicts_are_those_of_the_labels(folder: Path) -> None:
    found = lines(predict(folder, folder / "castings" / "test", "--json"))

    assert all(Path(str(line["path"])).parent.name == line["verdict"] for line in found)


def test_a_bad_file_is_a_line_of_its_own_and_the_others_are_still_scored(
    folder: Path, tmp_path: Path
) -> None:
    good = folder / "castings" / "test" / "ok" / "0.png"
    (tmp_path / "a-bad.jpeg").write_bytes(b"no image")
    (tmp_path / "b-good.png").write_bytes(good.read_bytes())
    (tmp_path / "c-cut.png").write_bytes(good.read_bytes()[:-40])

    result = predict(folder, tmp_path, tmp_path / "gone.png", good, "--json")

    found = lines(result)
    assert result.exit_code == 1
    assert [Path(str(line["path"])).name for line in found] == [
        "a-bad.jpeg",
        "b-good.png",
        "c-cut.png",
        "gone.png",
        "0.png",
    ]
    assert ["error" in line for line in found] == [True, False, True, True, False]
    assert set(found[0]) == {"path", "error"}


def test_an_odd_suffix_does_not_hide_a_casting(folder: Path, tmp_path: Path) -> None:
    good = folder / "castings" / "test" / "defect" / "0.png"
    (tmp_path / "part.dat").write_bytes(good.read_bytes())
    (tmp_path / ".DS_Store").write_bytes(b"hidden")

    (line,) = lines(predict(folder, tmp_path, "--json"))

    assert line["verdict"] == "defect"


def test_an_empty_folder_is_an_error_that_names_it(folder: Path, tmp_path: Path) -> None:
    result = predict(folder, tmp_path)

    assert isinstance(result.exception, DataError)
    assert str(tmp_path) in str(result.exception)


def test_people_get_a_line_per_image(folder: Path) -> None:
    result = predict(folder, folder / "castings" / "test" / "ok" / "0.png")

    assert result.stdout.startswith("ok ")
    assert "1 judged" in result.stderr
