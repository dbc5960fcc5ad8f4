"""The model package: assembled once, verified always."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from registry_builders import assembled, make_castings, make_run

from zdm_ml.errors import PackageError
from zdm_ml.files import read_json, sha256_file, write_json
from zdm_ml.registry.package import Package, Source, load_package
from zdm_ml.registry.selftest import main, self_test_in_clean_process


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Source]:
    folder = tmp_path_factory.mktemp("run")
    rows = make_castings(folder / "castings")
    return folder, make_run(folder, folder / "castings", rows)


def _assemble(run: tuple[Path, Source], destination: Path, **changes: str) -> Package:
    folder, source = run
    return assembled(
        destination,
        folder,
        folder / "castings",
        make_castings(folder / "castings"),
        replace(source, **changes),
    )


@pytest.fixture(scope="module")
def package(run: tuple[Path, Source], tmp_path_factory: pytest.TempPathFactory) -> Package:
    return _assemble(run, tmp_path_factory.mktemp("package") / "package")


@pytest.fixture
def copy(package: Package, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package.folder, tmp_path / "copy"))


def test_a_package_passes_its_self_test_here_and_in_a_clean_process(package: Package) -> None:
    assert package.self_test() <= 1e-6
    assert self_test_in_clean_process(package.folder) <= 1e-3


def test_two_golden_images_per_class_are_kept_bit_for_bit(
    run: tuple[Path, Source], package: Package
) -> None:
    names = [entry["file"] for entry in read_json(package.folder / "golden.json")["images"]]

    assert [Path(name).name.split("-")[0] for name in names] == ["ok", "ok", "defect", "defect"]
    assert [image.shape for image in package.golden_images()] == [(48, 56)] * 4


def test_castings_trained_on_leave_test_out(package: Package) -> None:
    tested = {row.part for row in package.test_rows}

    assert len(package.info.trained_on) == 14
    assert len(tested) == 24
    assert not tested & package.info.trained_on


def test_the_digest_ignores_where_a_package_was_made(
    run: tuple[Path, Source], package: Package, tmp_path: Path
) -> None:
    elsewhere = _assemble(run, tmp_path / "a", run_id="other", git_commit="other")
    other_data = _assemble(run, tmp_path / "b", data_md5="other.dir")

    assert elsewhere.info.digest == package.info.digest
    assert other_data.info.digest != package.info.digest


@pytest.mark.parametrize(
    "name",
    [
        "weights.safetensors",
        "net.json",
        "decision.json",
        "castings.json",
        "test.csv",
        "golden.json",
        "golden/ok-0.png",
    ],
)
def test_a_flipped_bit_anywhere_is_refused(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)

    with pytest.raises(PackageError, match="does not match its sha256"):
        load_package(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "decision.json").unlink()

    with pytest.raises(PackageError, match=r"decision\.json is missing"):
        load_package(copy)


def test_a_resealed_package_has_another_digest_than_it_says(copy: Path) -> None:
    decision = read_json(copy / "decision.json")
    write_json(copy / "decision.json", {**decision, "threshold": 0.99})
    sealed = read_json(copy / "package.json")
    sealed["files"]["decision.json"] = sha256_file(copy / "decision.json")
    write_json(copy / "package.json", sealed)

    with pytest.raises(PackageError, match="its own digest"):
        load_package(copy)


def test_scores_that_moved_fail_the_self_test(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = read_json(copy / "golden.json")
    golden["images"][0]["score"] += 0.01
    write_json(copy / "golden.json", golden)
    sealed = read_json(copy / "package.json")
    sealed["files"]["golden.json"] = sha256_file(copy / "golden.json")
    write_json(copy / "package.json", sealed)

    with pytest.raises(PackageError, match="off by"):
        load_package(copy).self_test()
    assert main([str(copy)]) == 1
    assert "off by" in capsys.readouterr().err


def test_a_clean_process_that_fails_is_told_in_its_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", _failing_python(tmp_path))

    with pytest.raises(PackageError, match=r"clean process: image 1 is off by 0\.01$"):
        self_test_in_clean_process(tmp_path)


def _failing_python(folder: Path) -> str:
    """Return a program that ends as a self-test does whose scores have moved."""
    program = folder / "python"
    program.write_text("#!/bin/sh\necho 'image 1 is off by 0.01' >&2\nexit 1\n")
    program.chmod(0o755)
    return str(program)


def test_where_val_calibrated_the_golden_images_are_of_val(
    run: tuple[Path, Source], tmp_path: Path
) -> None:
    folder, source = run
    rows = [row for row in make_castings(folder / "castings") if row.split != "calibration"]

    package = assembled(tmp_path / "package", folder, folder / "castings", rows, source)

    assert len(package.golden_images()) == 4


def test_a_missing_out_names_the_file(run: tuple[Path, Source], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run[0], tmp_path / "run"))
    (folder / "evaluation" / "luna" / "decision.json").unlink()

    with pytest.raises(PackageError, match=r"decision\.json is missing"):
        _assemble((folder, run[1]), tmp_path / "package")
    assert not (tmp_path / "package").exists()


def _with_licence(run: tuple[Path, Source], folder: Path, **changes: object) -> tuple[Path, Source]:
    """Return a copy of a run whose evaluation says that the net's heat maps are licensed."""
    copied = Path(shutil.copytree(run[0], folder))
    digest = read_json(copied / "models" / "luna" / "net.json")["digest"]
    said = {"verdict": "licensed", "reason": "they point at it", "model_digest": digest}
    write_json(copied / "evaluation" / "luna" / "saliency.json", {**said, **changes})
    return copied, run[1]


def test_a_licence_to_show_heat_maps_travels_with_the_package(
    run: tuple[Path, Source], tmp_path: Path
) -> None:
    package = _assemble(_with_licence(run, tmp_path / "run"), tmp_path / "package")

    assert package.map_licence.licensed
    assert load_package(package.folder).map_licence.reason == "they point at it"
    assert (
        "Heat maps: licensed; they point at it." in (package.folder / "MODEL_CARD.md").read_text()
    )


def test_a_package_of_before_heat_maps_loads_and_has_no_licence(package: Package) -> None:
    assert not (package.folder / "saliency.json").exists()
    assert package.map_licence.verdict == "not_measured"
    assert "Heat maps: NOT licensed" in (package.folder / "MODEL_CARD.md").read_text()


def test_a_licence_that_is_laid_into_a_package_counts_for_nothing(copy: Path) -> None:
    digest = read_json(copy / "net.json")["digest"]
    write_json(copy / "saliency.json", {"verdict": "licensed", "model_digest": digest})

    assert load_package(copy).map_licence.verdict == "not_measured"


def test_a_licence_that_was_changed_in_a_package_is_refused(
    run: tuple[Path, Source], tmp_path: Path
) -> None:
    below = _with_licence(run, tmp_path / "run", verdict="below_floor")
    package = _assemble(below, tmp_path / "package")
    figures = read_json(package.folder / "saliency.json")
    write_json(package.folder / "saliency.json", {**figures, "verdict": "licensed"})

    with pytest.raises(PackageError, match="does not match its sha256"):
        load_package(package.folder)


def test_a_licence_of_other_weights_counts_for_nothing(
    run: tuple[Path, Source], tmp_path: Path
) -> None:
    other = _with_licence(run, tmp_path / "run", model_digest="0" * 64)

    package = _assemble(other, tmp_path / "package")

    assert package.map_licence.verdict == "not_measured"
