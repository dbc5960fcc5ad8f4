"""Data versions: commits on the branch `zdm/data`, each a DVC-tracked folder and its list."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from zdm_ml.data.listing import Entry, parse_listing
from zdm_ml.errors import DataError
from zdm_ml.pipeline.commands import git

logger = logging.getLogger(__name__)

BRANCH = "zdm/data"
POINTER = "data/castings.dvc"
LISTING = "data/castings.csv"
INTAKE = "intake"

_LOG_FORMAT = "%H%x09%cI%x09%(trailers:key=Made-by,valueonly,separator=%x2C)%x09%s"


@dataclass(frozen=True)
class DataVersion:
    """One commit on the data branch; `md5` is DVC's hash of the folder, ending in `.dir`.

    `made_by` is what made it: import or intake.
    """

    commit: str
    md5: str
    date: str
    message: str
    made_by: str = ""


def versions(root: Path) -> list[DataVersion]:
    """Return all data versions, the newest first; a commit with a damaged pointer is left out."""
    if not git(root, "for-each-ref", f"refs/heads/{BRANCH}"):
        return []
    lines = git(root, "log", f"--format={_LOG_FORMAT}", BRANCH).splitlines()
    commits = [line.split("\t", 3) for line in lines]
    pointers = read_blobs(root, [f"{commit[0]}:{POINTER}" for commit in commits])
    found = []
    for (commit, date, made_by, message), pointer in zip(commits, pointers, strict=True):
        try:
            found.append(DataVersion(commit, parse_md5(pointer or ""), date, message, made_by))
        except DataError as error:
            logger.warning("commit %s of %s is no data version: %s", commit[:12], BRANCH, error)
    return found


def resolve(root: Path, wanted: str = "latest") -> DataVersion:
    """Return a version by `latest`, commit (or its beginning) or DVC hash."""
    known = versions(root)
    if not known:
        raise DataError(
            "no data version yet", hint="zdm data import <zip | folder | kaggle | synthetic>"
        )
    if wanted == "latest":
        return known[0]
    for version in known:
        if version.commit.startswith(wanted) or wanted.removesuffix(".dir") == version.md5[:-4]:
            return version
    raise DataError(f"no data version {wanted!r}", hint="`zdm data log` lists them")


def pointer_text(root: Path, commit: str) -> str:
    """Return the `.dvc` file of a data version."""
    return git(root, "show", f"{commit}:{POINTER}") + "\n"


def listing_of(root: Path, commit: str) -> str | None:
    """Return the text of a version's castings list; a version from before there was one has none.

    Raises `DataError` where the list is damaged.
    """
    (text,) = read_blobs(root, [f"{commit}:{LISTING}"])
    if text is not None:
        parse_listing(text, f"{commit[:12]}:{LISTING}")
    return text


def entries_of(root: Path, commit: str) -> list[Entry] | None:
    """Return the castings list of a data version, or None where it has none."""
    (text,) = read_blobs(root, [f"{commit}:{LISTING}"])
    return None if text is None else parse_listing(text, f"{commit[:12]}:{LISTING}")


def read_blobs(root: Path, names: Sequence[str]) -> list[str | None]:
    """Return the text of git blobs such as `<commit>:<path>`, None for those that do not exist."""
    if not names:
        return []
    printed = git(root, "cat-file", "--batch", stdin="".join(f"{name}\n" for name in names))
    content = (printed + "\n").encode()
    texts: list[str | None] = []
    position = 0
    for _ in names:
        end = content.index(b"\n", position)
        header, position = content[position:end], end + 1
        if header.endswith(b" missing"):
            texts.append(None)
            continue
        size = int(header.rsplit(b" ", 1)[1])
        texts.append(content[position : position + size].decode())
        position += size + 1
    return texts


def parse_md5(pointer: str) -> str:
    """Return the folder hash that a `.dvc` file names; an empty or cut one raises `DataError`."""
    try:
        md5 = str(yaml.safe_load(pointer)["outs"][0]["md5"])
        int(md5.removesuffix(".dir"), 16)
    except (yaml.YAMLError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DataError(f"{POINTER} is empty or damaged", hint="import the data again") from error
    if len(md5) != 36:
        raise DataError(f"{POINTER} names a cut hash {md5!r}", hint="import the data again")
    return md5
