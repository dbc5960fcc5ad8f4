import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from registry_builders import assembled, make_castings, make_run

import zdm_ml
from zdm_ml.errors import ConfigError, PackageError, RegistryError
from zdm_ml.loading import load_inspector, load_model
from zdm_ml.settings import Settings, load_settings

IMAGE = np.full((48, 56), 60, np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one LUNA and one package of it."""
    folder = tmp_path_factory.mktemp("trained")
    rows = make_castings(folder / "castings")
    source = make_run(folder / "run", folder / "castings", rows, threshold=0.625)
    assembled(folder / "package", folder / "run", folder / "castings", rows, source)
    return folder


@pytest.fixture
def checkout(project: Path, tmp_path: Path) -> Path:
    """A checkout that has trained nothing."""
    root = tmp_path / "checkout"
    root.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(project / name, root / name)
    return root


def settings_of(root: Path) -> Settings:
    return load_settings({"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, root)


def test_a_package_comes_with_its_calibrated_threshold(trained: Path, checkout: Path) -> None:
    inspector = load_inspector(str(trained / "package"), settings_of(checkout))

    assert inspector.ruling.threshold == 0.625
    digest = json.loads((trained / "package" / "package.json").read_text())["digest"]
    assert inspector.version == digest[:12]


def test_a_trained_net_takes_its_threshold_from_its_own_evaluation(
    trained: Path, checkout: Path
) -> None:
    inspector = load_inspector(trained / "run" / "models" / "luna", settings_of(checkout))

    assert inspector.ruling.threshold == 0.625


def test_a_net_brings_the_licence_of_its_own_evaluation(
    trained: Path, checkout: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained / "run", tmp_path / "run"))
    digest = json.loads((run / "models" / "luna" / "net.json").read_text())["digest"]
    figures = run / "evaluation" / "luna" / "saliency.json"
    verdicts = {}
    for name, weights in (("its own", digest), ("another", "0" * 64)):
        said = {"verdict": "licensed", "reason": "they point at it", "model_digest": weights}
        figures.write_text(json.dumps(said))
        inspector = load_inspector(run / "models" / "luna", settings_of(checkout))
        verdicts[name] = inspector.map_licence.verdict

    assert verdicts == {"its own": "licensed", "another": "not_measured"}


@pytest.mark.parametrize("place", ["package", "run/models/luna"])
def test_what_was_evaluated_before_heat_maps_has_no_licence(
    trained: Path, checkout: Path, place: str
) -> None:
    inspector = load_inspector(trained / place, settings_of(checkout))

    assert inspector.map_licence.verdict == "not_measured"


def test_a_trained_net_without_a_threshold_cannot_judge_but_can_be_loaded(
    trained: Path, checkout: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(trained / "run" / "models" / "luna", tmp_path / "x" / "luna"))

    with pytest.raises(PackageError, match="no threshold"):
        load_inspector(folder, settings_of(checkout))

    assert load_model(folder).spec.model_name == "luna"


def test_a_model_name_means_the_net_of_the_checkout(trained: Path, checkout: Path) -> None:
    shutil.copytree(trained / "run", checkout, dirs_exist_ok=True)

    inspector = load_inspector("luna", settings_of(checkout))

    assert inspector.net.spec.model_name == "luna"


def test_a_model_name_falls_back_to_the_newest_run(trained: Path, checkout: Path) -> None:
    runs = checkout / ".zdm" / "runs"
    for name, threshold in (("old", 0.25), ("new", 0.75)):
        shutil.copytree(trained / "run", runs / name)
        decision = runs / name / "evaluation" / "luna" / "decision.json"
        decision.write_text(json.dumps({"threshold": threshold, "positive": "defect"}))
    os.utime(runs / "old" / "models" / "luna" / "net.json", (1, 1))

    assert load_inspector("luna", settings_of(checkout)).ruling.threshold == 0.75


def test_a_run_folder_means_its_winner(trained: Path, checkout: Path) -> None:
    run = Path(shutil.copytree(trained / "run", checkout / "run"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(checkout / name, run / name)

    assert load_inspector(run, settings_of(checkout)).net.spec.model_name == "luna"


def test_an_unfinished_run_has_no_winner(checkout: Path) -> None:
    with pytest.raises(PackageError, match="no winner"):
        load_inspector(checkout, settings_of(checkout))


def test_an_untrained_model_says_how_to_train_it(checkout: Path) -> None:
    with pytest.raises(PackageError, match="dvc repro train@resnet18"):
        load_inspector("resnet18", settings_of(checkout))


def test_an_unknown_name_lists_what_can_be_named(checkout: Path) -> None:
    with pytest.raises(ConfigError, match=r"resnet50(.|\n)*champion"):
        load_inspector("resnet50", settings_of(checkout))


def test_a_flipped_bit_is_refused(trained: Path, tmp_path: Path, checkout: Path) -> None:
    folder = Path(shutil.copytree(trained / "package", tmp_path / "package"))
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-5] ^= 4
    (folder / "weights.safetensors").write_bytes(content)

    with pytest.raises(PackageError, match="sha256"):
        load_inspector(folder, settings_of(checkout))
    with pytest.raises(PackageError, match="sha256"):
        load_model(folder)


@pytest.mark.parametrize("ref", ["champion", "3"])
def test_a_registry_out_of_reach_is_an_error_that_says_so(ref: str, checkout: Path) -> None:
    with pytest.raises(RegistryError, match="127"):
        load_inspector(ref, settings_of(checkout))


def test_one_line_gives_a_net_with_its_own_preprocessing(trained: Path) -> None:
    net = zdm_ml.load_model(trained / "package")

    (score,) = net.scores([IMAGE])
    assert 0.5 < score <= 1


def test_the_package_imports_without_torch() -> None:
    code = "import sys, zdm_ml; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_other_names_stay_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = zdm_ml.no_such_name
