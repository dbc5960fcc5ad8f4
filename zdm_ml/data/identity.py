"""The name of a dataset: the hash that DVC gives to its folder."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

OFFICIAL_MD5 = "ec9cf34c38c10641c30e782f16fb1191.dir"
"""The whole Kaggle set, 7,348 images, laid out as {train,test}/{def_front,ok_front}/."""

THREADS = 4


def dvc_folder_hash(folder: Path) -> str:
    """Return the `.dir` hash that DVC 3 gives to `folder`: the md5 of its sorted file list."""
    files = sorted(
        (Path(parent, name) for parent, _, names in os.walk(folder) for name in names),
        key=lambda path: path.relative_to(folder).as_posix(),
    )
    with ThreadPoolExecutor(THREADS) as pool:
        digests = pool.map(_md5, files)
        listing = [
            {"md5": digest, "relpath": path.relative_to(folder).as_posix()}
            for path, digest in zip(files, digests, strict=True)
        ]
    text = json.dumps(listing, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
