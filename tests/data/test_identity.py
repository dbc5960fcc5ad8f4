"""The name of a dataset is the hash that DVC itself gives to the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from zdm_ml.data.identity import dvc_folder_hash


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # DVC's own imports warn
def test_the_folder_hash_is_the_one_dvc_computes(dataset: Path) -> None:
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    (dataset / "train" / "Zoë 1.txt").write_text("a name with a space and an accent")
    disk = LocalFileSystem()
    store = HashFileDB(disk, str(dataset.parent / "store"))

    _, _, tree = build(store, str(dataset), disk, "md5", dry_run=True)

    assert dvc_folder_hash(dataset) == tree.hash_info.value


def test_the_hash_follows_names_and_bytes(dataset: Path) -> None:
    first = dvc_folder_hash(dataset)
    (dataset / "test/ok_front/cast_3.jpeg").rename(dataset / "test/ok_front/cast_3b.jpeg")

    renamed = dvc_folder_hash(dataset)
    (dataset / "test/ok_front/cast_3b.jpeg").rename(dataset / "test/ok_front/cast_3.jpeg")

    assert renamed != first
    assert dvc_folder_hash(dataset) == first
