"""The inbox: a folder or URL where labelled images arrive, and which of them are whole."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import fsspec

from zdm_ml.data.known_parts import PARTS_FILE
from zdm_ml.data.layout import CLASS_FOLDERS
from zdm_ml.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

UNFINISHED = (".part", ".tmp", ".crdownload")
SETTLE_SECONDS = 5.0
YOUNG = dt.timedelta(minutes=10)

Look = dict[str, tuple[int, str]]
"""Size and time stamp of every file by its path relative to the inbox, `class folder/name`."""


@dataclass
class Inbox:
    """Files below `url`, a folder of this machine or anything that fsspec reads."""

    url: str
    _fs: Any = field(init=False, repr=False)
    _root: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            self._fs, self._root = fsspec.url_to_fs(self.url)
        except (ValueError, ImportError, OSError) as error:
            raise ConfigError(
                f"inbox {self.url!r} cannot be opened: {error}",
                hint="set ZDM_INBOX to a folder or to a URL that fsspec reads",
            ) from error

    def look(self) -> Look:
        """Return the images that lie there, without hidden and unfinished files."""
        self._fs.invalidate_cache()
        found: Look = {}
        for folder in CLASS_FOLDERS:
            place = f"{self._root.rstrip('/')}/{folder}"
            try:
                infos = self._fs.find(place, detail=True)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise DataError(
                    f"inbox {place} cannot be listed: {error}",
                    hint="correct its owner or address; nothing was taken",
                ) from error
            for path, info in infos.items():
                relative = PurePosixPath(path).relative_to(PurePosixPath(place))
                if _is_image_name(relative):
                    found[f"{folder}/{relative}"] = (int(info["size"] or 0), _stamp(info))
        return found

    def stable(
        self, settle_seconds: float, sleep: Callable[[float], None] = time.sleep
    ) -> tuple[Look, list[str]]:
        """Look twice; return what stayed the same, and the paths of what did not."""
        first = self.look()
        if not first:
            return {}, []
        sleep(settle_seconds)
        second = self.look()
        same = {path: facts for path, facts in second.items() if first.get(path) == facts}
        return same, sorted(second.keys() - same.keys())

    def read(self, path: str) -> bytes:
        """Return a file's content; raises `OSError`."""
        content: bytes = self._fs.cat_file(self._place(path))
        return content

    def is_young(self, path: str, now: dt.datetime) -> bool:
        """Tell whether a file was written lately; one without a known age was not."""
        try:
            modified: dt.datetime = self._fs.modified(self._place(path))
        except (NotImplementedError, OSError, KeyError):
            return False
        if modified.tzinfo is None:
            modified = modified.replace(tzinfo=dt.UTC)
        return now - modified < YOUNG

    def parts_list(self) -> Mapping[str, str]:
        """Return the text of the inbox's parts.csv by its name, or nothing without one."""
        try:
            return {PARTS_FILE: self.read(PARTS_FILE).decode("utf-8-sig")}
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{PARTS_FILE} in {self.url} cannot be read: {error}",
                hint="save it as CSV in UTF-8",
            ) from error

    def remove(self, looked: Mapping[str, tuple[int, str]], paths: Iterable[str]) -> None:
        """Remove files that are still as they were looked at."""
        current = self.look()
        for path in paths:
            if current.get(path) != looked[path]:
                continue
            try:
                self._fs.rm_file(self._place(path))
            except (OSError, NotImplementedError) as error:
                logger.warning("%s stays in the inbox: %s", path, error)

    def _place(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"


def _is_image_name(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and not path.name.lower().endswith(UNFINISHED) and path.name != "Thumbs.db"


def _stamp(info: Mapping[str, Any]) -> str:
    """Return whatever the place tells that changes when a file is written."""
    keys = ("mtime", "LastModified", "last_modified", "updated", "created", "ETag", "etag")
    return "|".join(str(info[key]) for key in keys if info.get(key) is not None)
