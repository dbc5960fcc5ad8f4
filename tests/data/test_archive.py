"""Staging a dataset: what is taken, what is quarantined, what is refused with nothing written."""

from __future__ import annotations

import csv
import io
import logging
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from zdm_ml.data.archive import Staged, stage_source
from zdm_ml.data.identity import dvc_folder_hash
from zdm_ml.data.sources import Limits
from zdm_ml.errors import ArchiveError, DataError

Jpeg = Callable[[int], bytes]
Stage = Callable[..., Staged]


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "staging" / "castings"


@pytest.fixture
def stage(tmp_path: Path, destination: Path) -> Stage:
    def run(source: Path, **options: object) -> Staged:
        return stage_source(
            source,
            destination,
            quarantine=tmp_path / "quarantine",
            max_pixels=1_000_000,
            **options,  # type: ignore[arg-type]  # each test passes what it is about
        )

    return run


@pytest.fixture
def pack(tmp_path: Path, dataset: Path) -> Callable[..., Path]:
    """A function that zips the dataset below `prefix`, with extra members."""

    def make(extra: Sequence[tuple[zipfile.ZipInfo | str, bytes]] = (), prefix: str = "") -> Path:
        path = tmp_path / "castings.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(dataset.rglob("*.jpeg")):
                archive.write(file, prefix + file.relative_to(dataset).as_posix())
            for name, content in extra:
                archive.writestr(name, content)
        return path

    return make


def special(name: str, kind: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system = 3
    member.external_attr = (kind | 0o644) << 16
    return member


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def nothing_was_written(tmp_path: Path) -> bool:
    return not contents(tmp_path / "staging") and not (tmp_path / "quarantine").exists()


def test_a_folder_is_staged_byte_for_byte(dataset: Path, destination: Path, stage: Stage) -> None:
    staged = stage(dataset)

    assert contents(destination) == contents(dataset)
    assert staged.images == 24
    assert staged.per_split == {"train": {"ok": 6, "defect": 6}, "test": {"ok": 6, "defect": 6}}
    assert staged.quarantined == ()
    assert staged.summary == "train 6 ok + 6 defect, test 6 ok + 6 defect"


@pytest.mark.parametrize("prefix", ["", "casting_data/", "casting_data/casting_data/", "a\\b\\"])
def test_a_zip_is_staged_whatever_lies_around_the_class_folders(
    prefix: str, pack: Callable[..., Path], dataset: Path, destination: Path, stage: Stage
) -> None:
    stage(pack(prefix=prefix))

    assert contents(destination) == contents(dataset)


def test_other_files_and_the_512_px_set_are_ignored_with_a_line(
    pack: Callable[..., Path], stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    archive = pack(
        [
            ("casting_512x512/train/ok_front/big.jpeg", b"never read"),
            ("README.txt", b"hello"),
            ("__MACOSX/train/ok_front/._cast_1.jpeg", b"junk"),
        ]
    )

    with caplog.at_level(logging.INFO):
        staged = stage(archive)

    assert (staged.images, staged.ignored) == (24, 3)
    assert "casting_512x512: 1 files of another resolution ignored" in caplog.text


def test_progress_ends_at_the_number_of_images(dataset: Path, stage: Stage) -> None:
    seen: list[tuple[int, int]] = []

    stage(dataset, progress=lambda done, total: seen.append((done, total)))

    assert seen == [(done, 24) for done in range(1, 25)]


def test_staging_replaces_what_was_there(dataset: Path, destination: Path, stage: Stage) -> None:
    destination.mkdir(parents=True)
    (destination / "old.txt").write_text("old")

    stage(dataset)

    assert contents(destination) == contents(dataset)
    assert list(destination.parent.iterdir()) == [destination]


def test_a_staged_folder_can_be_staged_onto_itself(
    dataset: Path, destination: Path, stage: Stage
) -> None:
    stage(dataset)

    stage(destination)

    assert contents(destination) == contents(dataset)


def test_bad_files_go_to_quarantine_with_a_reason_each(
    dataset: Path, destination: Path, tmp_path: Path, stage: Stage, jpeg: Jpeg
) -> None:
    cut = jpeg(1)[:-200]
    (dataset / "train/ok_front/cut.jpeg").write_bytes(cut)
    (dataset / "train/ok_front/notes.txt").write_bytes(b"hello")
    (dataset / "test/def_front/dead.jpeg").symlink_to(tmp_path / "nowhere")

    staged = stage(dataset)

    assert staged.images == 24
    reasons = {bad.path: bad.reason.split(":")[0] for bad in staged.quarantined}
    assert reasons == {
        "test/def_front/dead.jpeg": "unreadable",
        "train/ok_front/cut.jpeg": "undecodable",
        "train/ok_front/notes.txt": "not_an_image",
    }
    assert staged.quarantine is not None
    assert (staged.quarantine / "train/ok_front/cut.jpeg").read_bytes() == cut
    with (staged.quarantine / "reasons.csv").open() as file:
        listed = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert listed == {bad.path: bad.reason for bad in staged.quarantined}


def test_a_repeated_import_adds_nothing_to_the_quarantine(
    dataset: Path, tmp_path: Path, stage: Stage
) -> None:
    (dataset / "train/ok_front/notes.txt").write_bytes(b"hello")
    stage(dataset)
    first = contents(tmp_path / "quarantine")

    stage(dataset)

    assert contents(tmp_path / "quarantine") == first


def test_a_name_that_is_no_text_is_quarantined(dataset: Path, stage: Stage, jpeg: Jpeg) -> None:
    folder = os.fsencode(dataset / "train/ok_front")
    with open(folder + b"/bad\xff\n.jpeg", "wb") as file:  # noqa: PTH123 (a name of raw bytes)
        file.write(jpeg(99))

    staged = stage(dataset)

    assert [bad.reason.split(":")[0] for bad in staged.quarantined] == ["unusable_name"]


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        ("/etc/passwd", "absolute path"),
        ("C:\\windows\\x.jpeg", "absolute path"),
        ("train/../../escape.jpeg", "leads outside"),
        ("train\\..\\..\\escape.jpeg", "leads outside"),
        (special("train/ok_front/link.jpeg", stat.S_IFLNK), "is a link"),
        (special("train/ok_front/device", stat.S_IFCHR), "is a device"),
        (special("train/ok_front/pipe", stat.S_IFIFO), "is a device"),
        ("./train/def_front/cast_0.jpeg", "twice"),
    ],
)
def test_a_dangerous_member_is_refused_by_name_and_nothing_is_written(
    member: str | zipfile.ZipInfo,
    problem: str,
    pack: Callable[..., Path],
    tmp_path: Path,
    stage: Stage,
) -> None:
    name = member if isinstance(member, str) else member.filename
    archive = pack([(member, b"content")])

    with pytest.raises(ArchiveError, match=problem) as caught:
        stage(archive)

    assert name.replace("\\", "/").removeprefix("./") in caught.value.problem
    assert nothing_was_written(tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")  # the archive under test is built with one
def test_a_name_that_occurs_twice_is_refused(
    pack: Callable[..., Path], tmp_path: Path, stage: Stage
) -> None:
    archive = pack([("train/def_front/cast_0.jpeg", b"another")])

    with pytest.raises(ArchiveError, match=r"train/def_front/cast_0\.jpeg' twice"):
        stage(archive)

    assert nothing_was_written(tmp_path)


def test_two_files_that_would_become_one_are_refused(
    pack: Callable[..., Path], tmp_path: Path, stage: Stage, jpeg: Jpeg
) -> None:
    archive = pack([("copy/train/def_front/cast_0.jpeg", jpeg(7))])

    with pytest.raises(ArchiveError, match=r"copy/train/def_front/cast_0\.jpeg"):
        stage(archive)

    assert nothing_was_written(tmp_path)


def test_a_member_compressed_more_than_a_hundredfold_is_refused(
    pack: Callable[..., Path], tmp_path: Path, stage: Stage
) -> None:
    archive = pack([("train/ok_front/bomb.jpeg", bytes(1_000_000))])

    with pytest.raises(ArchiveError, match=r"bomb\.jpeg' is compressed more than 100x"):
        stage(archive)

    assert nothing_was_written(tmp_path)


def test_members_that_share_their_bytes_are_refused(
    pack: Callable[..., Path], tmp_path: Path, stage: Stage
) -> None:
    archive = pack()
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        largest, start = max(members, key=lambda m: m.compress_size), opened.start_dir
    for _ in members:
        start = content.index(b"PK\x01\x02", start)
        content[start + 20 : start + 24] = (10 * largest.compress_size).to_bytes(4, "little")
        start += 4
    archive.write_bytes(bytes(content))

    with pytest.raises(ArchiveError, match="overlaps"):
        stage(archive)

    assert nothing_was_written(tmp_path)


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        (Limits(files=23), "more than 23 files"),
        (Limits(total_bytes=5_000), "more than 5,000 bytes"),
        (Limits(file_bytes=100), "more than 100"),
    ],
)
def test_too_much_in_an_archive_is_refused(
    limits: Limits, problem: str, pack: Callable[..., Path], tmp_path: Path, stage: Stage
) -> None:
    with pytest.raises(ArchiveError, match=problem) as caught:
        stage(pack(), limits=limits)

    assert ".jpeg'" in caught.value.problem
    assert nothing_was_written(tmp_path)


def test_an_encrypted_member_is_refused(pack: Callable[..., Path], stage: Stage) -> None:
    archive = pack()
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(bytes(content))

    with pytest.raises(ArchiveError, match="is encrypted"):
        stage(archive)


def test_a_zip_cut_short_is_refused(
    pack: Callable[..., Path], tmp_path: Path, stage: Stage
) -> None:
    archive = pack()
    archive.write_bytes(archive.read_bytes()[:-300])

    with pytest.raises(ArchiveError, match="not a whole zip"):
        stage(archive)

    assert nothing_was_written(tmp_path)


def test_a_zip_with_a_damaged_member_is_refused(
    pack: Callable[..., Path], tmp_path: Path, stage: Stage
) -> None:
    archive = pack()
    content = bytearray(archive.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 40] = bytes(40)
    archive.write_bytes(bytes(content))

    with pytest.raises(ArchiveError, match="is damaged"):
        stage(archive)

    assert nothing_was_written(tmp_path)


def test_a_missing_source_is_named(tmp_path: Path, stage: Stage) -> None:
    with pytest.raises(DataError, match=r"nowhere\.zip does not exist"):
        stage(tmp_path / "nowhere.zip")


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / "text.zip").write_text("hello")

    with pytest.raises(ArchiveError, match="not a whole zip"):
        stage(tmp_path / "text.zip")


def test_an_empty_folder_holds_no_castings(tmp_path: Path, stage: Stage) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(DataError, match="holds no castings"):
        stage(tmp_path / "empty")


def test_an_empty_zip_holds_no_castings(tmp_path: Path, stage: Stage) -> None:
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    (tmp_path / "empty.zip").write_bytes(buffer.getvalue())

    with pytest.raises(DataError, match="holds no castings"):
        stage(tmp_path / "empty.zip")


@pytest.fixture
def without(dataset: Path) -> Callable[[str], Path]:
    """A function that empties the dataset's folders that match a pattern."""

    def remove(pattern: str) -> Path:
        for file in list(dataset.glob(pattern)):
            file.unlink()
        return dataset

    return remove


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("*/ok_front/*", "one class only: no ok images"),
        ("*/def_front/*", "one class only: no defect images"),
        ("test/ok_front/*", "no images in test/ok_front"),
        ("test/*/*", "no images in test/def_front, test/ok_front"),
        ("*/*_front/cast_1[0-5].jpeg", "has 18 usable images, at least 20"),
    ],
)
def test_an_incomplete_dataset_is_refused_and_says_what_is_missing(
    pattern: str, problem: str, without: Callable[[str], Path], tmp_path: Path, stage: Stage
) -> None:
    with pytest.raises(DataError, match=problem):
        stage(without(pattern))

    assert nothing_was_written(tmp_path)


def test_a_class_that_is_all_quarantined_is_refused_and_the_old_data_stay(
    dataset: Path, destination: Path, stage: Stage
) -> None:
    stage(dataset)
    before = contents(destination)
    for file in (dataset / "test/ok_front").iterdir():
        file.write_bytes(b"broken")

    with pytest.raises(DataError, match="no images in test/ok_front"):
        stage(dataset)

    assert contents(destination) == before


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with next to no room."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a tmpfs needs more rights")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_nothing_is_left_on_it(full_disk: Path, dataset: Path) -> None:
    with pytest.raises(DataError, match="No space left on device"):
        stage_source(
            dataset,
            full_disk / "castings",
            quarantine=full_disk / "quarantine",
            max_pixels=1_000_000,
        )

    assert list(full_disk.iterdir()) == []


def test_a_file_that_cannot_be_written_whole_leaves_no_dataset(
    dataset: Path, destination: Path, tmp_path: Path
) -> None:
    program = (
        "import resource, sys; from pathlib import Path;"
        "from zdm_ml.data.archive import stage_source; from zdm_ml.errors import DataError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))\n"
        "try: stage_source(sys.argv[1], Path(sys.argv[2]), quarantine=Path(sys.argv[3]),"
        " max_pixels=10**6)\n"
        "except DataError as error: sys.exit(str(error))"
    )
    arguments = [str(dataset), str(destination), str(tmp_path / "quarantine")]

    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert nothing_was_written(tmp_path)


def test_the_real_archive_gets_the_hash_that_dvc_gives_it(
    real_castings: tuple[Staged, Path],
) -> None:
    staged, folder = real_castings

    assert staged.per_split == {
        "train": {"ok": 1781, "defect": 2475},
        "test": {"ok": 195, "defect": 364},
    }
    assert staged.quarantined == ()
    assert dvc_folder_hash(folder) == "9e187d86e7aaaca68ea5efb45e2ec77a.dir"
