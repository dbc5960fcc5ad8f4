"""`zdm data audit` as a script or a quality manager uses it, in any folder."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zdm_ml.data.synthetic import make_synthetic

ZDM = Path(sys.executable).parent / "zdm"
KEYS = {
    *("images", "parts", "parts_defect", "parts_ok", "parts_mixed", "exact_duplicates"),
    *("identical_across_splits", "test_images", "test_images_with_train_sibling"),
    *("label_conflicts", "brightness_auc", "background_auc", "quarantined"),
}
COLUMNS = {"path", "label", "shipped_split", "part", "sha256", "nearest", "similarity"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder outside any checkout, with castings two levels down."""
    root = tmp_path_factory.mktemp("outside")
    make_synthetic(root / "deep/castings", parts=8, views=2, seed=2, size=120)
    return root


def _zdm(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ZDM_")}
    return subprocess.run(
        [str(ZDM), "data", "audit", *arguments],
        cwd=cwd,
        env=inherited,
        capture_output=True,
        text=True,
        check=False,
    )


def test_json_stands_alone_on_stdout_beside_page_and_manifest(folder: Path) -> None:
    done = _zdm(folder, ".", "--json", "--html", "out/audit.html", "--manifest", "out/audit.csv")

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) >= KEYS
    assert (report["images"], report["parts"]) == (16, 8)
    with (folder / "out/audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert set(rows[0]) >= COLUMNS
    assert all((folder / row["path"]).is_file() for row in rows)
    assert (folder / "out/audit.html").read_text().startswith("<!doctype html>")


def test_a_person_gets_findings_and_what_to_do(folder: Path) -> None:
    done = _zdm(folder, "deep")

    assert done.returncode == 0, done.stderr
    assert "16 images of 8 castings" in done.stderr
    assert "Photograph more castings" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("nowhere",), "nowhere does not exist"),
        (("deep/castings/masks",), "holds no castings"),
        (("deep/castings/train/def_front",), "has one class only: no ok images"),
        (("deep", "--html", "deep"), "deep cannot be written: it is a folder"),
        (("deep", "--manifest", "deep/castings/parts.csv/x.csv"), "x.csv cannot be written"),
    ],
)
def test_a_mistake_is_named_with_the_next_step(
    arguments: tuple[str, ...], problem: str, folder: Path
) -> None:
    done = _zdm(folder, *arguments)

    assert done.returncode == 1
    assert problem in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_broken_parts_list_stops_the_audit(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder / "deep/castings", tmp_path / "castings"))
    (copy / "parts.csv").write_text("file,id\n")

    done = _zdm(tmp_path, "castings")

    assert done.returncode == 1
    assert "parts.csv has columns" in done.stderr
