"""The audit's page: one file for people, whatever the images are called."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from zdm_ml.data.audit import Audit, audit_images
from zdm_ml.data.audit_page import render_page, similarity_histogram, write_page
from zdm_ml.data.discovery import find_images
from zdm_ml.data.known_parts import known_parts, read_parts_files
from zdm_ml.data.synthetic import make_synthetic
from zdm_ml.params import AuditParams

HOSTILE = "<script>alert(1)<&>.jpeg"


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    """Eight castings; one good image lies in test and, under a hostile name, among the defects."""
    folder = tmp_path_factory.mktemp("page") / "castings"
    make_synthetic(folder, parts=8, views=2, seed=2, size=120)
    source = min((folder / "train/ok_front").iterdir())
    shutil.copy(source, folder / "test/ok_front" / "again.jpeg")
    shutil.copy(source, folder / "train/def_front" / HOSTILE)
    (folder / "train/def_front" / "<i>broken.png").write_bytes(b"broken")
    with (folder / "parts.csv").open() as file:
        part = next(line.split(",")[1] for line in file if line.startswith("train/ok_front"))
    with (folder / "parts.csv").open("a") as file:
        file.write(f"test/ok_front/again.jpeg,{part},\n")
        file.write(f"train/def_front/{HOSTILE},{part},\n")
    files = find_images(folder)
    known = known_parts(files, read_parts_files(folder, files), None)
    params = AuditParams(1_000_000, None)
    return audit_images(folder, files, params, known=known.parts, warnings=known.warnings)


@pytest.fixture(scope="module")
def page(audit: Audit) -> str:
    return render_page(audit)


def test_the_page_needs_no_other_file_and_no_network(page: str) -> None:
    sources = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', page)

    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "http" not in re.sub(r'src="[^"]*"', "", page)
    assert "@import" not in page and "url(" not in page


def test_names_of_files_are_text_and_never_markup(page: str) -> None:
    assert "<script" not in page and "<i>broken" not in page
    assert "&lt;script&gt;alert(1)&lt;&amp;&gt;.jpeg" in page


def test_the_page_opens_with_the_verdict_and_says_what_to_do(audit: Audit, page: str) -> None:
    assert page.index("Do not trust") < page.index("What was found")
    for suggestion in audit.report["suggestions"]:
        assert suggestion.split("'")[0] in page


def test_the_page_shows_leaks_conflicts_and_outliers(page: str) -> None:
    for heading in (
        "The same casting in test and in train",
        "One casting, two labels",
        "The same file in both classes",
        "The darkest and the brightest castings",
        "Files that do not decode",
    ):
        assert heading in page


def test_the_same_audit_gives_the_same_bytes(audit: Audit, page: str, tmp_path: Path) -> None:
    write_page(tmp_path / "audit.html", audit)

    assert (tmp_path / "audit.html").read_bytes() == page.encode()


def test_the_histogram_counts_every_image_that_has_a_nearest_one(audit: Audit) -> None:
    histogram = similarity_histogram(audit)

    assert histogram is not None
    assert sum(bar.count for bar in histogram.bars) == sum(bool(row.nearest) for row in audit.rows)
