"""Where castings come from: the files of a zip or a folder, refused when dangerous to unpack."""

from __future__ import annotations

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zdm_ml.errors import ArchiveError, DataError

HINT = "nothing was written; check where the archive comes from"


@dataclass(frozen=True)
class Limits:
    """What a source may hold at most; `ratio` is unpacked over packed bytes of one member."""

    files: int = 100_000
    total_bytes: int = 8 << 30
    file_bytes: int = 64 << 20
    ratio: float = 100.0


class Source(Protocol):
    """Files by name; names are relative, with forward slashes."""

    names: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """Return the whole content of one file; safe to call from several threads."""


class FolderSource:
    """A folder of the user: links to files are followed, links to folders are not."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self._root, self._limits = root, limits
        names: list[str] = []
        for parent, _, files in os.walk(root):
            names += (Path(parent, file).relative_to(root).as_posix() for file in files)
            if len(names) > limits.files:
                raise DataError(
                    f"{root} holds more than {limits.files:,} files",
                    hint="name the folder of the castings itself",
                )
        self.names = tuple(sorted(names))

    def read(self, name: str) -> bytes:
        """Return a file's content; a pipe, a dead link or a huge file raises `OSError`."""
        path = self._root / name
        if not path.is_file():
            raise OSError("not a regular file")
        if path.stat().st_size > self._limits.file_bytes:
            raise OSError(f"more than {self._limits.file_bytes:,} bytes")
        return path.read_bytes()


class ZipSource:
    """A zip whose every member was checked by its header before anything is unpacked."""

    def __init__(self, archive: zipfile.ZipFile, packed_bytes: int, limits: Limits) -> None:
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        total = packed = 0
        for count, member in enumerate(archive.infolist(), start=1):
            name = _safe_name(member)
            total += member.file_size
            packed += member.compress_size
            _check_size(limits, name, member.file_size, count, total)
            _check_packing(limits, name, member)
            if packed > packed_bytes:
                raise ArchiveError(f"archive member {name!r} overlaps another member", hint=HINT)
            if name in self._members:
                raise ArchiveError(f"archive holds {name!r} twice", hint=HINT)
            self._members[name] = member
        self.names = tuple(
            sorted(name for name, member in self._members.items() if not member.is_dir())
        )

    def read(self, name: str) -> bytes:
        """Return a member's content; a damaged one raises `ArchiveError`."""
        try:
            return self._archive.read(self._members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            raise ArchiveError(
                f"archive member {name!r} is damaged: {error}", hint="fetch the archive again"
            ) from error


@contextmanager
def open_source(path: Path, limits: Limits) -> Iterator[Source]:
    """Yield the checked files of a folder or zip; raises `DataError` or `ArchiveError`."""
    if path.is_dir():
        yield FolderSource(path, limits)
        return
    if not path.exists():
        raise DataError(f"{path} does not exist", hint="name a zip or a folder of castings")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ArchiveError(
            f"{path} is not a whole zip: {error}", hint="fetch it again, or name a folder"
        ) from error
    with archive:
        yield ZipSource(archive, path.stat().st_size, limits)


def _safe_name(member: zipfile.ZipInfo) -> str:
    """Return a member's normalised name; backslashes count as separators, as on Windows."""
    raw = member.filename.replace("\\", "/")
    if raw.startswith("/") or re.match(r"[A-Za-z]:", raw):
        raise ArchiveError(f"archive member {raw!r} has an absolute path", hint=HINT)
    if ".." in raw.split("/"):
        raise ArchiveError(f"archive member {raw!r} leads outside the archive", hint=HINT)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise ArchiveError(f"archive member {raw!r} is a link", hint=HINT)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveError(f"archive member {raw!r} is a device or another special file", hint=HINT)
    return "/".join(part for part in raw.split("/") if part not in ("", "."))


def _check_packing(limits: Limits, name: str, member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 1:
        raise ArchiveError(
            f"archive member {name!r} is encrypted", hint="pack the images without a password"
        )
    if member.file_size > limits.ratio * member.compress_size:
        raise ArchiveError(
            f"archive member {name!r} is compressed more than {limits.ratio:.0f}x", hint=HINT
        )


def _check_size(limits: Limits, name: str, size: int, count: int, total: int) -> None:
    if size > limits.file_bytes:
        raise ArchiveError(
            f"archive member {name!r} has {size:,} bytes, more than {limits.file_bytes:,}",
            hint=HINT,
        )
    if count > limits.files:
        raise ArchiveError(
            f"archive holds more than {limits.files:,} files, reached at {name!r}", hint=HINT
        )
    if total > limits.total_bytes:
        raise ArchiveError(
            f"archive holds more than {limits.total_bytes:,} bytes, reached at {name!r}", hint=HINT
        )
