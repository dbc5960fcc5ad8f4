from pathlib import Path

import pytest
from folder_source import FolderSource

from zdm_ml.errors import PackageError
from zdm_ml.serving.packages import PackageCache
from zdm_ml.serving.source import Champion


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def champion(source: FolderSource) -> Champion:
    found = source.champion()
    assert isinstance(found, Champion)
    return found


def test_a_package_is_downloaded_once(source: FolderSource, tmp_path: Path) -> None:
    cache = PackageCache(tmp_path / "state")

    first = cache.obtain(champion(source), source)
    second = cache.obtain(champion(source), source)

    assert first.info == second.info
    assert source.fetched == ["1"]


@pytest.mark.parametrize("file", ["weights.safetensors", "decision.json", "golden/ok-2.png"])
def test_a_flipped_bit_in_a_download_is_refused_and_leaves_nothing(
    source: FolderSource, tmp_path: Path, file: str
) -> None:
    asked = champion(source)
    damaged = source.folders["1"] / file
    flip_a_bit(damaged if damaged.is_file() else next((source.folders["1"] / "golden").iterdir()))

    with pytest.raises(PackageError):
        PackageCache(tmp_path / "state").obtain(asked, source)

    assert list((tmp_path / "state" / "packages").iterdir()) == []


def test_a_flipped_bit_in_the_local_copy_is_healed_from_the_registry(
    source: FolderSource, tmp_path: Path
) -> None:
    cache = PackageCache(tmp_path / "state")
    asked = champion(source)
    cache.obtain(asked, source)
    flip_a_bit(tmp_path / "state" / "packages" / asked.digest / "weights.safetensors")

    package = cache.obtain(asked, source)

    assert package.info.digest == asked.digest
    assert source.fetched == ["1", "1"]


def test_another_package_than_was_registered_is_refused(
    source: FolderSource, tmp_path: Path
) -> None:
    asked = champion(source)
    source.folders["1"] = source.folders["2"]

    with pytest.raises(PackageError, match="registered with"):
        PackageCache(tmp_path / "state").obtain(asked, source)


def test_the_remembered_version_is_verified_again(source: FolderSource, tmp_path: Path) -> None:
    cache = PackageCache(tmp_path / "state")
    asked = champion(source)
    cache.obtain(asked, source)
    cache.remember(asked)
    flip_a_bit(tmp_path / "state" / "packages" / asked.digest / "weights.safetensors")

    with pytest.raises(PackageError, match="weights"):
        cache.last()


def test_a_forgotten_version_is_not_served_again(source: FolderSource, tmp_path: Path) -> None:
    cache = PackageCache(tmp_path / "state")
    asked = champion(source)
    cache.obtain(asked, source)
    cache.remember(asked)

    cache.forget()

    assert cache.last() is None


def test_a_damaged_note_of_the_last_version_is_an_error_not_a_guess(tmp_path: Path) -> None:
    cache = PackageCache(tmp_path)
    (tmp_path / "last.json").write_text('{"version": "1"')

    with pytest.raises(PackageError, match=r"last\.json"):
        cache.last()
