import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from folder_source import FolderSource

from zdm_ml.serving import reloader as module
from zdm_ml.serving.packages import PackageCache
from zdm_ml.serving.reloader import Reloader


@pytest.fixture
def boot(source: FolderSource, tmp_path: Path) -> Callable[[], Reloader]:
    """Return what a fresh server process would start with, on the same state folder."""
    return lambda: Reloader(
        source, PackageCache(tmp_path / "state"), max_pixels=10_000, poll_seconds=0.02
    )


def version(reloader: Reloader) -> str | None:
    served = reloader.state.served
    return served.champion.version if served else None


def damage(folder: Path) -> None:
    with (folder / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))


def test_a_moved_alias_is_followed(boot: Callable[[], Reloader], source: FolderSource) -> None:
    reloader = boot()
    reloader.poll()
    before = version(reloader)

    source.current = "2"
    reloader.poll()

    assert (before, version(reloader)) == ("1", "2")
    assert reloader.state.served is not None
    assert reloader.state.served.predictor.ruling.threshold == 0.25


def test_nothing_is_loaded_again_while_the_alias_stays(
    boot: Callable[[], Reloader], source: FolderSource
) -> None:
    reloader = boot()
    reloader.poll()
    served = reloader.state.served

    reloader.poll()

    assert reloader.state.served is served


def test_a_broken_champion_leaves_the_old_one_and_says_so(
    boot: Callable[[], Reloader], source: FolderSource
) -> None:
    reloader = boot()
    reloader.poll()
    damage(source.folders["2"])

    source.current = "2"
    reloader.poll()

    assert version(reloader) == "1"
    assert "version 2 was not loaded" in reloader.state.problem
    assert "version 1 serves" in reloader.state.problem


def test_a_broken_champion_at_boot_is_not_replaced_by_an_older_copy(
    boot: Callable[[], Reloader], source: FolderSource
) -> None:
    boot().poll()
    damage(source.folders["2"])
    source.current = "2"

    reloader = boot()
    reloader.poll()

    assert version(reloader) is None
    assert "no approved model" in reloader.state.problem


def test_a_broken_champion_is_tried_again_after_a_pause(
    boot: Callable[[], Reloader], source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.05, 0.1))
    reloader = boot()
    damage(source.folders["1"])
    reloader.poll()
    reloader.poll()
    at_once = list(source.fetched)
    time.sleep(0.06)

    damage(source.folders["1"])  # the same bit again: healed
    reloader.poll()

    assert at_once == ["1"]
    assert version(reloader) == "1"
    assert reloader.state.problem == ""


def test_another_version_is_tried_at_once_after_a_failure(
    boot: Callable[[], Reloader], source: FolderSource
) -> None:
    reloader = boot()
    damage(source.folders["1"])
    reloader.poll()

    source.current = "2"
    reloader.poll()

    assert version(reloader) == "2"


def test_a_withdrawn_champion_stops_the_service_now_and_after_a_restart(
    boot: Callable[[], Reloader], source: FolderSource
) -> None:
    reloader = boot()
    reloader.poll()

    source.current = None
    reloader.poll()
    source.reachable = False
    restarted = boot()
    restarted.poll()

    assert version(reloader) is None
    assert version(restarted) is None


def test_a_registry_that_goes_away_leaves_the_champion_serving(
    boot: Callable[[], Reloader], source: FolderSource
) -> None:
    reloader = boot()
    reloader.poll()

    source.reachable = False
    reloader.poll()

    assert version(reloader) == "1"
    assert "out of reach" in reloader.state.problem


def test_boot_without_registry_serves_the_last_verified_copy_and_says_so(
    boot: Callable[[], Reloader], source: FolderSource
) -> None:
    boot().poll()
    source.reachable = False

    reloader = boot()
    reloader.poll()

    assert version(reloader) == "1"
    assert reloader.state.origin == "local copy"
    assert "last verified local copy" in reloader.state.problem


def test_boot_without_registry_refuses_an_altered_copy(
    boot: Callable[[], Reloader], source: FolderSource, tmp_path: Path
) -> None:
    boot().poll()
    source.reachable = False
    damage(next((tmp_path / "state" / "packages").iterdir()))

    reloader = boot()
    reloader.poll()

    assert version(reloader) is None
    assert "sha256" in reloader.state.problem


def test_boot_without_registry_and_copy_serves_nothing(
    boot: Callable[[], Reloader], source: FolderSource
) -> None:
    source.reachable = False
    reloader = boot()

    reloader.poll()

    assert version(reloader) is None
    assert "no local copy" in reloader.state.problem


def test_the_local_copy_becomes_the_registry_s_word_once_it_answers(
    boot: Callable[[], Reloader], source: FolderSource
) -> None:
    boot().poll()
    source.reachable = False
    reloader = boot()
    reloader.poll()

    source.reachable = True
    reloader.poll()

    assert (reloader.state.origin, reloader.state.problem) == ("registry", "")
    assert source.fetched == ["1"]


def test_a_rollback_during_a_load_is_not_overtaken(
    boot: Callable[[], Reloader], source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    reloader = boot()
    reloader.poll()
    fetch = source.fetch

    def fetch_while_rolled_back(version: str, destination: Path) -> Path:
        source.current = "1"
        return Path(fetch(version, destination))

    monkeypatch.setattr(source, "fetch", fetch_while_rolled_back)
    source.current = "2"
    reloader.poll()

    assert version(reloader) == "1"


def test_only_the_serving_and_the_replaced_package_stay_on_disk(
    boot: Callable[[], Reloader], source: FolderSource, tmp_path: Path
) -> None:
    reloader = boot()
    for current in ("1", "2", "3"):
        source.current = current
        reloader.poll()

    kept = {folder.name for folder in (tmp_path / "state" / "packages").iterdir()}

    source.current = "2"
    replaced = source.champion()
    assert reloader.state.served is not None
    assert kept == {reloader.state.served.champion.digest, replaced.digest}


def test_an_unexpected_failure_does_not_end_the_polling(
    boot: Callable[[], Reloader], source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()
    champion = source.champion

    def fail_once() -> object:
        if failed.is_set():
            return champion()
        failed.set()
        raise ValueError("unexpected")

    monkeypatch.setattr(source, "champion", fail_once)
    reloader = boot()
    reloader.start()
    deadline = time.monotonic() + 5
    while version(reloader) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    reloader.stop()

    assert failed.is_set()
    assert version(reloader) == "1"
