"""What the inbox shows, and what each file in it is to the newest data version."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from zdm_ml.data.inbox import Inbox
from zdm_ml.data.listing import Entry
from zdm_ml.data.manifest import Row
from zdm_ml.data.sorting import Sorting, review_conflicts, sort_arrivals
from zdm_ml.errors import ConfigError

Jpeg = Callable[[int], bytes]
Put = Callable[..., None]


@pytest.fixture(params=["folder", "file", "memory"])
def inbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Inbox]:
    """An inbox as a plain folder, as a file:// URL and in fsspec's memory."""
    memory = fsspec.filesystem("memory")
    urls = {
        "folder": str(tmp_path / "inbox"),
        "file": f"file://{tmp_path / 'inbox'}",
        "memory": "memory://inbox",
    }
    yield Inbox(urls[request.param])
    if memory.exists("/inbox"):
        memory.rm("/inbox", recursive=True)


@pytest.fixture
def put(inbox: Inbox) -> Put:
    """A function that writes a file into the inbox; where files have an age, an hour ago."""

    def write(name: str, content: bytes, *, young: bool = False) -> None:
        fs, root = fsspec.url_to_fs(inbox.url)
        fs.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{root}/{name}", content)
        if fs.protocol != "memory" and not young:
            os.utime(f"{root}/{name}", (1e9, 1e9))
        elif not young:
            file = fs.store[f"{root}/{name}"]
            file.created = file.modified = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)

    return write


def sort(inbox: Inbox, folder: Path, listed: list[Entry] | None = None) -> Sorting:
    return sort_arrivals(inbox, inbox.look(), folder, listed or [], max_pixels=1_000_000)


def entry(path: str, content: bytes) -> Entry:
    digest = hashlib.sha256(content).hexdigest()
    return Entry(path, digest, len(content), "p1", False, "train")


def row(path: str, part: str) -> Row:
    label = "ok" if "ok_front" in path else "defect"
    return Row(path, path, label, part, "train", "", -1, 1, 1, 0.0, "", "")


def test_an_inbox_that_does_not_exist_is_empty(inbox: Inbox) -> None:
    assert inbox.look() == {}
    assert inbox.stable(0, lambda _: None) == ({}, [])


def test_hidden_and_unfinished_files_are_not_seen(inbox: Inbox, put: Put) -> None:
    for name in (".hidden.jpeg", "a.jpeg.part", "b.tmp", "c.jpeg.crdownload", "Thumbs.db"):
        put(f"ok_front/{name}", b"x")
    put("elsewhere/d.jpeg", b"x")
    put("ok_front/monday/e.jpeg", b"x")

    assert list(inbox.look()) == ["ok_front/monday/e.jpeg"]


def test_a_file_that_grows_between_two_looks_waits(inbox: Inbox, put: Put) -> None:
    put("ok_front/whole.jpeg", b"xx")
    put("def_front/growing.jpeg", b"xx")

    looked, unsettled = inbox.stable(
        5, lambda seconds: put("def_front/growing.jpeg", b"x" * int(seconds))
    )

    assert list(looked) == ["ok_front/whole.jpeg"]
    assert unsettled == ["def_front/growing.jpeg"]


def test_a_file_that_is_written_anew_between_two_looks_waits(inbox: Inbox, put: Put) -> None:
    put("ok_front/a.jpeg", b"xx")

    looked, unsettled = inbox.stable(5, lambda _: put("ok_front/a.jpeg", b"yy", young=True))

    assert (looked, unsettled) == ({}, ["ok_front/a.jpeg"])


def test_only_files_that_did_not_change_are_removed(inbox: Inbox, put: Put) -> None:
    put("ok_front/a.jpeg", b"xx")
    put("ok_front/b.jpeg", b"xx")
    looked = inbox.look()
    put("ok_front/b.jpeg", b"xxx")

    inbox.remove(looked, looked)

    assert list(inbox.look()) == ["ok_front/b.jpeg"]


def test_the_parts_list_of_the_inbox_is_read(inbox: Inbox, put: Put) -> None:
    before = inbox.parts_list()
    put("parts.csv", b"path,part\nok_front/a.jpeg,SN1\n")

    assert before == {}
    assert inbox.parts_list() == {"parts.csv": "path,part\nok_front/a.jpeg,SN1\n"}


def test_an_inbox_of_an_unknown_kind_is_named() -> None:
    with pytest.raises(ConfigError, match="carrierpigeon"):
        Inbox("carrierpigeon://loft")


def test_sound_files_are_fresh_under_their_own_names(
    inbox: Inbox, put: Put, jpeg: Jpeg, tmp_path: Path
) -> None:
    put("ok_front/a.jpeg", jpeg(1))
    put("def_front/a.jpeg", jpeg(2))

    sorting = sort(inbox, tmp_path / "arrived")

    assert sorting.fresh == {
        "def_front/a.jpeg": "train/def_front/a.jpeg",
        "ok_front/a.jpeg": "train/ok_front/a.jpeg",
    }
    assert (tmp_path / "arrived" / "ok_front" / "a.jpeg").read_bytes() == jpeg(1)


def test_a_name_that_is_taken_gets_a_new_one(
    inbox: Inbox, put: Put, jpeg: Jpeg, tmp_path: Path
) -> None:
    put("ok_front/a.jpeg", jpeg(1))
    put("ok_front/monday/a.jpeg", jpeg(2))

    sorting = sort(inbox, tmp_path, [entry("train/ok_front/a.jpeg", jpeg(3))])

    digest = hashlib.sha256(jpeg(1)).hexdigest()
    assert sorting.fresh["ok_front/a.jpeg"] == f"train/ok_front/a_{digest[:8]}.jpeg"
    assert len(set(sorting.fresh.values()) - {"train/ok_front/a.jpeg"}) == 2


def test_exact_duplicates_of_the_version_and_of_each_other_are_dropped(
    inbox: Inbox, put: Put, jpeg: Jpeg, tmp_path: Path
) -> None:
    put("ok_front/known.jpeg", jpeg(1))
    put("ok_front/new.jpeg", jpeg(2))
    put("ok_front/twin.jpeg", jpeg(2))

    sorting = sort(inbox, tmp_path, [entry("test/ok_front/x.jpeg", jpeg(1))])

    assert list(sorting.fresh) == ["ok_front/new.jpeg"]
    assert sorting.duplicates == ["ok_front/known.jpeg", "ok_front/twin.jpeg"]


def test_the_same_bytes_with_the_other_label_go_to_review(
    inbox: Inbox, put: Put, jpeg: Jpeg, tmp_path: Path
) -> None:
    put("def_front/known.jpeg", jpeg(1))
    put("def_front/both.jpeg", jpeg(2))
    put("ok_front/both.jpeg", jpeg(2))

    sorting = sort(inbox, tmp_path, [entry("test/ok_front/x.jpeg", jpeg(1))])

    assert sorting.fresh == {}
    assert "ok in test/ok_front/x.jpeg" in sorting.conflicts["def_front/known.jpeg"]
    assert "def_front/both.jpeg" in sorting.conflicts["ok_front/both.jpeg"]
    assert "ok_front/both.jpeg" in sorting.conflicts["def_front/both.jpeg"]


def test_what_does_not_decode_waits_while_it_is_young(
    inbox: Inbox, put: Put, jpeg: Jpeg, tmp_path: Path
) -> None:
    put("ok_front/cut.jpeg", jpeg(1)[:-200])
    put("ok_front/arriving.jpeg", jpeg(2)[:-200], young=True)
    put("ok_front/empty.jpeg", b"", young=True)

    sorting = sort(inbox, tmp_path)

    assert list(sorting.bad) == ["ok_front/cut.jpeg"]
    assert sorting.bad["ok_front/cut.jpeg"].startswith("undecodable")
    assert sorting.waiting == ["ok_front/arriving.jpeg", "ok_front/empty.jpeg"]


def test_a_file_that_shrank_since_it_was_looked_at_waits(
    inbox: Inbox, put: Put, jpeg: Jpeg, tmp_path: Path
) -> None:
    put("ok_front/a.jpeg", jpeg(1))
    looked = inbox.look()
    put("ok_front/a.jpeg", jpeg(1)[:-50])

    sorting = sort_arrivals(inbox, looked, tmp_path, [], max_pixels=1_000_000)

    assert sorting.waiting == ["ok_front/a.jpeg"]


def test_an_image_whose_casting_carries_the_other_label_goes_to_review() -> None:
    sorting = Sorting(fresh={"def_front/n.jpeg": "train/def_front/n.jpeg"})
    rows = [row("train/ok_front/a.jpeg", "p1"), row("train/def_front/n.jpeg", "p1")]

    sent = review_conflicts(sorting, rows)

    assert sent == {"train/def_front/n.jpeg"}
    assert sorting.fresh == {}
    assert "casting p1 is ok in train/ok_front/a.jpeg" in sorting.conflicts["def_front/n.jpeg"]


def test_new_images_of_one_casting_with_both_labels_all_go_to_review() -> None:
    names = ("ok_front/a.jpeg", "def_front/b.jpeg", "ok_front/c.jpeg")
    sorting = Sorting(fresh={name: f"train/{name}" for name in names})
    rows = [row(f"train/{name}", "p1") for name in names]

    review_conflicts(sorting, rows)

    assert set(sorting.conflicts) == set(names)


def test_a_mislabelled_image_takes_no_sound_one_of_its_casting_to_review() -> None:
    names = ("ok_front/wrong.jpeg", "def_front/right.jpeg")
    sorting = Sorting(fresh={name: f"train/{name}" for name in names})
    rows = [row("test/def_front/a.jpeg", "p1"), *(row(f"train/{name}", "p1") for name in names)]

    sent = review_conflicts(sorting, rows)

    assert sent == {"train/ok_front/wrong.jpeg"}
    assert list(sorting.fresh) == ["def_front/right.jpeg"]


def test_images_that_join_their_casting_stay() -> None:
    sorting = Sorting(fresh={"ok_front/n.jpeg": "train/ok_front/n.jpeg"})
    rows = [row("test/ok_front/a.jpeg", "p1"), row("train/ok_front/n.jpeg", "p1")]

    assert review_conflicts(sorting, rows) == set()
    assert list(sorting.fresh) == ["ok_front/n.jpeg"]
