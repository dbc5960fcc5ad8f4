"""The name of a dataset: the hash that DVC gives to its folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

OFFICIAL_MD5 = "ec9cf34c38c10641c30e782f16fb1191.dir"
"""The whole Kaggle set, 7,348 images, laid out as {train,test}/{def_front,ok_front}/."""

THREADS = 4


def dvc_folder_hash(folder: Path) -> str:
    """Return the `.dir` hash that DVC 3 gives to `folder`: the md5 of its sorted file list."""
    return listing_hash(file_hashes(folder))


def listing_hash(hashes: Mapping[str, str]) -> str:
    """Return the `.dir` hash of a folder with these files, in this order: path -> md5."""
    text = folder_object(hashes)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def folder_object(hashes: Mapping[str, str]) -> str:
    """Return the text that DVC keeps for a folder with these files, in this order: path -> md5."""
    listing = [{"md5": digest, "relpath": path} for path, digest in hashes.items()]
    return json.dumps(listing, sort_keys=True)


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the md5 of every file below `folder` by its relative path, sorted by path."""
    files = sorted(
        (Path(parent, name) for parent, _, names in os.walk(folder) for name in names),
        key=lambda path: path.relative_to(folder).as_posix(),
    )
    with ThreadPoolExecutor(THREADS) as pool:
        digests = pool.map(_md5, files)
        return {
            path.relative_to(folder).as_posix(): digest
            for path, digest in zip(files, digests, strict=True)
        }


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
