"""The names in an archive: whatever they are, none leads outside."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zdm_ml.data.sources import Limits, open_source
from zdm_ml.errors import ArchiveError, DataError

NAMES = st.lists(
    st.sampled_from(["..", ".", "a", "train", "C:", "x.jpeg", "", "~", "\u00e9"])
    | st.text(max_size=5),
    min_size=1,
    max_size=6,
).flatmap(lambda parts: st.sampled_from(["/", "\\"]).map(lambda mark: mark.join(parts)))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archive") / "names.zip"


@settings(deadline=None, max_examples=60, derandomize=True)
@given(name=NAMES.filter(lambda name: name.isprintable() and name.strip("/\\")))
def test_a_member_is_refused_or_stays_inside(archive: Path, name: str) -> None:
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(name, b"content")

    try:
        with open_source(archive, Limits()) as source:
            names = source.names
    except ArchiveError:
        return

    for accepted in names:
        assert not PurePosixPath(accepted).is_absolute()
        assert not PureWindowsPath(accepted).drive
        assert ".." not in accepted.split("/")
        assert "\\" not in accepted


def test_a_folder_with_too_many_files_is_refused(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.txt").touch()

    with (
        pytest.raises(DataError, match="more than 3 files"),
        open_source(tmp_path, Limits(files=3)),
    ):
        pass


def test_a_huge_file_in_a_folder_is_an_error_of_that_file_alone(tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_bytes(b"123")
    (tmp_path / "large.txt").write_bytes(b"12345")

    with open_source(tmp_path, Limits(file_bytes=4)) as source:
        assert source.read("small.txt") == b"123"
        with pytest.raises(OSError, match="more than 4 bytes"):
            source.read("large.txt")
