"""DVC's content-addressed objects: finding those whose bytes are not what their name says."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

logger = logging.getLogger(__name__)


def object_path(store: Path, md5: str) -> Path:
    """Return where a cache or remote folder keeps an object."""
    return store / md5[:2] / md5[2:]


def drop_cut_objects(stores: Iterable[Path], sizes: Mapping[str, int]) -> None:
    """Remove objects of another size than that of their bytes, given by md5.

    A writer that was killed leaves such a file, and DVC would take it for the whole one.
    """
    for store in stores:
        for md5, size in sizes.items():
            path = object_path(store, md5)
            if path.is_file() and path.stat().st_size != size:
                logger.warning("%s was cut short: written anew", path)
                path.unlink()


def drop_damaged_objects(store: Path, hashes: Iterable[str]) -> list[str]:
    """Remove the objects whose content has another md5 than their name; return those names."""
    dropped = []
    for md5 in hashes:
        path = object_path(store, md5)
        if path.is_file() and _md5(path) != md5.removesuffix(".dir"):
            path.unlink()
            dropped.append(md5)
    return dropped


def folder_objects(store: Path, md5: str) -> dict[str, str]:
    """Return path -> md5 of a folder from its `.dir` object; without a readable one nothing."""
    try:
        listing = json.loads(object_path(store, md5).read_text())
        return {str(item["relpath"]): str(item["md5"]) for item in listing}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
