"""The decision packet: figures, cases and the page that people read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from money import COST
from registry_builders import FINDING, assembled, board_row, make_castings, make_run

from zdm_ml.params import VerdictParams
from zdm_ml.pipeline.dvcfile import read_pipeline
from zdm_ml.registry.decision import Check
from zdm_ml.registry.evidence import Examination, Exhibit
from zdm_ml.registry.filing import AUDIT, LEADERBOARD
from zdm_ml.registry.gate import Policy
from zdm_ml.registry.package import Package
from zdm_ml.registry.packet import (
    FIGURES,
    PAGE,
    Background,
    disagreements,
    limits,
    worst_errors,
    write_packet,
)
from zdm_ml.registry.versions import VersionInfo

POLICY = Policy(0.6, 0.0, 2, 0.5, 0.1, 0.0, COST, VerdictParams(0.01, 0.95), 0.95, 100)
CHECKS = [Check("castings_ok", "passed", 12, 2), Check("escapes", "broken", 0.22, 0.2)]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Package, Package]:
    """Castings, a model that judges all of them right and one that judges all of them wrong."""
    folder = tmp_path_factory.mktemp("packet")
    rows = make_castings(folder / "castings")
    found = []
    for name, good in (("right", True), ("wrong", False)):
        run = folder / name
        source = make_run(run, folder / "castings", rows, good=good)
        found.append(assembled(folder / f"{name}-package", run, folder / "castings", rows, source))
    return folder / "castings", found[0], found[1]


def exhibit(folder: Path, challenger: Package, champion: Package | None) -> Exhibit:
    rows = challenger.test_rows
    images = [np.asarray(_read(folder / row.path)) for row in rows]
    scores = [package.net.scores(images) for package in (challenger, champion) if package]
    return Exhibit(folder, rows, challenger, champion, scores[0], scores[1] if champion else None)


def _read(path: Path) -> np.ndarray:
    from zdm_ml.data.images import decode_grey

    return decode_grey(path, max_pixels=10**6)


def version(number: str, profile: str = "quick") -> VersionInfo:
    return VersionInfo(number, "luna", "run-1", "", profile, "d" * 64, "md5.dir", "c" * 40)


class Resources(HTMLParser):
    """Collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]


def test_a_page_and_its_figures_are_written(
    packages: tuple[Path, Package, Package], tmp_path: Path
) -> None:
    folder, right, wrong = packages

    write_packet(
        tmp_path,
        version("2"),
        version("1"),
        Examination(CHECKS, exhibit(folder, right, wrong)),
        POLICY,
        Background(audit=[FINDING], reuse="Used twice."),
    )

    figures = json.loads((tmp_path / FIGURES).read_text())
    page = (tmp_path / PAGE).read_text()
    assert not figures["passed"]
    assert figures["figures"]["challenger"]["by_casting"]["escapes"] == 0
    assert figures["figures"]["champion"]["by_casting"]["escapes"] == 12
    assert len(figures["disagreements"]) == 24
    assert "The gate does not let this version pass against version 1" in page
    assert "Where the two models disagree (24 of 24 images)" in page
    assert "No image is judged wrong" in page
    assert "556 of 559 test images" in page and "Used twice." in page
    assert figures["audit"] == [FINDING]


def test_what_the_retraining_left_nothing_of_is_named(tmp_path: Path) -> None:
    examination = Examination(CHECKS[:1])

    write_packet(tmp_path, version("2"), None, examination, POLICY, Background(audit=[FINDING]))

    said = json.loads((tmp_path / FIGURES).read_text())["limits"][-1]
    assert "its leaderboard; how often its test castings" in said and "audit" not in said
    assert said in (tmp_path / PAGE).read_text()


def test_reports_are_looked_for_under_the_names_that_the_stages_give_them(project: Path) -> None:
    paths = read_pipeline(project).paths

    assert [f"reports/{Path(paths[name]).name}" for name in ("leaderboard", "audit_report")] == [
        LEADERBOARD,
        AUDIT,
    ]


def test_the_page_loads_nothing_from_elsewhere(
    packages: tuple[Path, Package, Package], tmp_path: Path
) -> None:
    folder, right, wrong = packages
    examination = Examination(CHECKS, exhibit(folder, wrong, right))

    write_packet(tmp_path, version("2"), version("1"), examination, POLICY, Background())

    found = Resources()
    found.feed((tmp_path / PAGE).read_text())
    assert len(found.sources) > 24
    assert all(source.startswith("data:image/") for source in found.sources)


def test_a_first_version_has_nobody_to_disagree_with(
    packages: tuple[Path, Package, Package], tmp_path: Path
) -> None:
    folder, right, _ = packages
    examination = Examination(CHECKS[:1], exhibit(folder, right, None))

    write_packet(tmp_path, version("1"), None, examination, POLICY, Background())

    page = (tmp_path / PAGE).read_text()
    assert "Every check of the gate passed: there is no champion yet" in page
    assert "disagree" not in page


def test_what_could_not_be_measured_still_has_a_packet(tmp_path: Path) -> None:
    broken = Examination([Check("digests", "broken", "weights do not match")])

    write_packet(tmp_path, version("3"), version("1"), broken, POLICY, Background())

    page = (tmp_path / PAGE).read_text()
    assert "weights do not match" in page
    assert "could not be compared" in page


def test_escapes_come_before_overkills_and_the_surest_first(
    packages: tuple[Path, Package, Package],
) -> None:
    folder, right, _ = packages
    shown = exhibit(folder, right, None)
    scores = shown.scores.copy()
    defects = [at for at, row in enumerate(shown.rows) if row.label == "defect"]
    good = [at for at, row in enumerate(shown.rows) if row.label == "ok"]
    scores[defects[3]], scores[defects[5]], scores[good[2]] = 0.2, 0.1, 0.99

    assert worst_errors(replace(shown, scores=scores)) == [defects[5], defects[3], good[2]]


def test_models_that_agree_have_no_disagreement(packages: tuple[Path, Package, Package]) -> None:
    folder, right, _ = packages

    assert disagreements(exhibit(folder, right, right)) == []


def test_limits_name_castings_guarantee_and_demo(packages: tuple[Path, Package, Package]) -> None:
    folder, right, _ = packages

    said = limits(exhibit(folder, right, None), CHECKS)

    assert said[0].startswith("The figures rest on 12 defective and 12 good castings.")
    assert said[1].startswith("No guarantee")
    assert any(line.startswith("A demo") for line in said)
    assert said[-1].startswith("Some checks could not be measured")


def test_all_models_of_the_run_are_shown_those_that_failed_without_figures(
    packages: tuple[Path, Package, Package], tmp_path: Path
) -> None:
    folder, right, _ = packages
    failed = dict.fromkeys(("castings", "cost", "p50_ms", "rank"))
    board = [
        board_row("luna"),
        board_row("swin_t", cost=None) | failed | {"reason": "not ranked: the loss became nan"},
    ]

    write_packet(
        tmp_path,
        version("1"),
        None,
        Examination(CHECKS[:1], exhibit(folder, right, None)),
        POLICY,
        Background(board),
    )

    page = (tmp_path / PAGE).read_text()
    assert "0 of 12" in page and "22.1 %" in page
    assert "no figures" in page and "the loss became nan" in page
    assert 'alt="cost of errors against latency"' in page


def with_licence(package: Package, folder: Path) -> Package:
    """Return a copy of a package that says that its heat maps point at the defect."""
    shutil.copytree(package.folder, folder)
    digest = json.loads((folder / "net.json").read_text())["digest"]
    said = {"verdict": "licensed", "reason": "they point at it", "model_digest": digest}
    (folder / "saliency.json").write_text(json.dumps(said))
    sealed = replace(package.info, files={**package.info.files, "saliency.json": ""})
    return replace(package, folder=folder, info=sealed)


def test_heat_maps_are_shown_of_a_licensed_model_alone(
    packages: tuple[Path, Package, Package], tmp_path: Path
) -> None:
    folder, right, wrong = packages
    licensed = with_licence(wrong, tmp_path / "package")
    pictures = {}
    for name, package in (("licensed", licensed), ("not", wrong)):
        examination = Examination(CHECKS, exhibit(folder, package, right))
        write_packet(tmp_path / name, version("2"), version("1"), examination, POLICY, Background())
        page = (tmp_path / name / PAGE).read_text()
        pictures[name] = page.count('alt="heat map"')
        reasons = json.loads((tmp_path / name / FIGURES).read_text())["limits"]
        assert any("No heat maps are shown" in line for line in reasons) is (name == "not")

    assert pictures == {"licensed": 48, "not": 0}  # 24 disagreements, which are 24 errors as well
