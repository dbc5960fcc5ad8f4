"""From the inbox to a data version: what joins it, what is kept apart, what leaves when."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from castings_desk import CastingsDesk, contents, picture

from zdm_ml.data.intake import Intake, take_in
from zdm_ml.data.uptake import FIRST_WAIT, is_pending, tell
from zdm_ml.data.versions import BRANCH, entries_of, resolve, versions
from zdm_ml.errors import PipelineError
from zdm_ml.files import read_json, write_json

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def desk(template: CastingsDesk, tmp_path: Path) -> CastingsDesk:
    return template.copy(tmp_path / "project")


def intake(desk: CastingsDesk) -> Intake:
    return take_in(desk.settings, desk.params, settle_seconds=0)


def test_an_empty_inbox_changes_nothing(desk: CastingsDesk) -> None:
    result = desk.json("zdm", "data", "intake")

    assert result["decision"] == "nothing"
    assert result["pending"] is False
    assert len(versions(desk.root)) == 1


def test_a_day_in_the_inbox(desk: CastingsDesk) -> None:
    """New images, a known casting, a duplicate, a bad file, a conflict, an unfinished copy."""
    before = {entry.path: entry for entry in entries_of(desk.root, BRANCH) or []}
    known = before["train/ok_front/cast_K_1.jpeg"]
    desk.arrive("parts.csv", b"path,part\nok_front/join.jpeg,K0\ndef_front/wrong.jpeg,K3\n")
    desk.arrive("ok_front/cast_K_1.jpeg", picture(7001))
    desk.arrive("ok_front/join.jpeg", picture(7002))
    desk.arrive("def_front/fresh.jpeg", picture(7003))
    desk.arrive("ok_front/twin.jpeg", (desk.castings / known.path).read_bytes())
    desk.arrive("def_front/cut.jpeg", picture(7004)[:-300])
    desk.arrive("def_front/wrong.jpeg", picture(7005))
    desk.arrive("ok_front/late.jpeg", picture(7006)[:-300], age_seconds=60)
    desk.arrive("ok_front/copy.jpeg.part", picture(7007))

    result = desk.json("zdm", "data", "intake", "--settle", "0.2")

    after = {entry.path: entry for entry in entries_of(desk.root, BRANCH) or []}
    assert result["decision"] == "imported"
    assert result["added"] == 3
    assert result["per_class"] == {"ok": 2, "defect": 1}
    assert (result["quarantined"], result["duplicates"], result["conflicts"]) == (1, 1, 1)
    assert (result["waiting"], result["pending"]) == (1, True)
    assert result["data_md5"] == resolve(desk.root).md5
    assert {path: after[path] for path in before} == before
    assert after["train/ok_front/join.jpeg"].part == "K0"
    assert after["train/ok_front/join.jpeg"].side == before["test/ok_front/cast_K_0.jpeg"].side
    assert after["train/def_front/fresh.jpeg"].side != ""
    (renamed,) = [path for path in after if path.startswith("train/ok_front/cast_K_1_")]
    assert renamed not in before
    assert sorted(contents(desk.inbox)) == [
        "ok_front/copy.jpeg.part",
        "ok_front/late.jpeg",
        "parts.csv",
    ]
    kept = {name: contents(desk.root / ".zdm" / name) for name in ("quarantine", "review")}
    assert any("cut.jpeg" in path for path in kept["quarantine"])
    (reasons,) = [text for path, text in kept["review"].items() if path.endswith("reasons.csv")]
    assert b"casting K3 is ok" in reasons
    assert "added 3, removed 0" in resolve(desk.root).message


def test_an_inbox_elsewhere_is_read_and_emptied(desk: CastingsDesk, tmp_path: Path) -> None:
    place = tmp_path / "share" / "ok_front"
    place.mkdir(parents=True)
    (place / "a.jpeg").write_bytes(picture(7100))
    settings = replace(desk.settings, inbox=f"file://{place.parent}")

    result = take_in(settings, desk.params, settle_seconds=0)

    assert result.imported
    assert list(place.iterdir()) == []


def test_without_a_first_version_images_wait(
    make_checkout: Callable[[], Path],
) -> None:
    desk = CastingsDesk(make_checkout())
    desk.arrive("ok_front/a.jpeg", picture(1))

    result = intake(desk)

    assert not result.imported
    assert "zdm data import" in result.reason
    assert (desk.inbox / "ok_front" / "a.jpeg").is_file()


def test_only_conflicts_make_no_version(desk: CastingsDesk) -> None:
    image = desk.castings / "train" / "ok_front" / "cast_K_1.jpeg"
    desk.arrive("def_front/a.jpeg", image.read_bytes())

    result = intake(desk)

    assert not result.imported
    assert len(result.sorting.conflicts) == 1
    assert contents(desk.inbox) == {}
    assert len(versions(desk.root)) == 1


def test_a_failed_push_leaves_the_inbox_as_it_was(
    desk: CastingsDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.arrive("ok_front/a.jpeg", picture(7200))
    from zdm_ml.data import publication

    real = publication.dvc

    def no_push(root: Path, *arguments: str) -> str:
        if arguments[0] == "push":
            raise PipelineError("no route to the remote")
        return real(root, *arguments)

    monkeypatch.setattr(publication, "dvc", no_push)
    with pytest.raises(PipelineError):
        intake(desk)
    left = contents(desk.inbox)
    monkeypatch.undo()

    result = intake(desk)

    assert list(left) == ["ok_front/a.jpeg"]
    assert result.imported
    assert contents(desk.inbox) == {}
    assert len(versions(desk.root)) == 2


def test_images_whose_intake_was_killed_before_they_left_are_duplicates(
    desk: CastingsDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.arrive("ok_front/a.jpeg", picture(7300))
    monkeypatch.setattr("zdm_ml.data.inbox.Inbox.remove", lambda *_: None)
    first = intake(desk)
    monkeypatch.undo()

    second = intake(desk)

    assert first.imported
    assert not second.imported
    assert second.sorting.duplicates == ["ok_front/a.jpeg"]
    assert (second.pending, second.announce) == (True, True)
    assert contents(desk.inbox) == {}


def test_a_version_is_pending_until_a_run_takes_it_up(desk: CastingsDesk) -> None:
    desk.arrive("ok_front/a.jpeg", picture(7400))
    intake(desk)
    before = is_pending(desk.settings, resolve(desk.root))
    record = desk.root / ".zdm" / "runs" / "r1" / ".zdm-run.json"
    write_json(record, {"data_md5": resolve(desk.root).md5})

    after = is_pending(desk.settings, resolve(desk.root))

    assert (before, after) == (True, False)


def test_a_pending_version_is_announced_at_growing_intervals(desk: CastingsDesk) -> None:
    version = resolve(desk.root)
    memory = desk.root / ".zdm" / "intake.json"

    told = [tell(desk.settings, version) for _ in range(4)]
    write_json(memory, {**read_json(memory), "last": time.time() - FIRST_WAIT - 1})

    assert told == [True, True, False, False]
    assert tell(desk.settings, version)


@pytest.mark.parametrize("moment", ["arrived", "castings", "tree/data/castings.dvc", "branch"])
def test_a_killed_intake_loses_nothing_and_a_rerun_completes(
    desk: CastingsDesk, moment: str
) -> None:
    """SIGKILL of the whole process group once a file exists, or once the branch has moved."""
    desk.arrive("ok_front/a.jpeg", picture(7500))
    first = resolve(desk.root)

    desk.kill_when(
        lambda: _reached(desk, moment, first.commit), "zdm", "data", "intake", "--settle", "0.1"
    )

    assert first in versions(desk.root)
    assert list(contents(desk.inbox)) == ["ok_front/a.jpeg"]
    assert intake(desk).pending
    newest = resolve(desk.root)
    assert "train/ok_front/a.jpeg" in {e.path for e in entries_of(desk.root, BRANCH) or []}
    assert len(versions(desk.root)) == 2
    assert contents(desk.inbox) == {}
    assert desk.gives_back(newest)


def _reached(desk: CastingsDesk, moment: str, first: str) -> bool:
    if moment == "branch":
        return (desk.root / ".git" / "refs" / "heads" / "zdm" / "data").read_text().strip() != first
    return any((desk.root / ".zdm" / "incoming").glob(f"*/{moment}"))
