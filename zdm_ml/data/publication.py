"""Publication: a folder of castings becomes the newest data version, wholly or not at all."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from zdm_ml.data.history import compare
from zdm_ml.data.identity import file_hashes, listing_hash
from zdm_ml.data.integrity import verify
from zdm_ml.data.listing import Entry, count_entries, listing_text
from zdm_ml.data.objects import drop_cut_objects
from zdm_ml.data.versions import (
    BRANCH,
    LISTING,
    POINTER,
    DataVersion,
    entries_of,
    listing_of,
    parse_md5,
    resolve,
    versions,
)
from zdm_ml.errors import DataError
from zdm_ml.pipeline.commands import dvc, git, git_as_product
from zdm_ml.pipeline.workspace import add_worktree, object_stores
from zdm_ml.settings import Settings, make_home


@contextmanager
def workshop(settings: Settings) -> Iterator[Path]:
    """Yield an empty folder to make one data version in, while nobody else makes one.

    What a killed predecessor left goes first. Only the holder of this lock writes the branch, so
    that git's lock file of it is such a leftover too.
    """
    home = make_home(settings.home)
    with FileLock(home / "locks" / "data.lock"):
        _clean(settings)
        lock = git(settings.root, "rev-parse", "--git-path", f"refs/heads/{BRANCH}.lock")
        (settings.root / lock).unlink(missing_ok=True)
        work = home / "incoming" / uuid.uuid4().hex[:8]
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            _clean(settings)


def _clean(settings: Settings) -> None:
    shutil.rmtree(settings.home / "incoming", ignore_errors=True)
    git(settings.root, "worktree", "prune")


def newest(settings: Settings) -> tuple[DataVersion | None, list[Entry]]:
    """Return the newest data version and its castings list; both are empty before the first."""
    known = versions(settings.root)
    if not known:
        return None, []
    return known[0], entries_of(settings.root, known[0].commit) or []


def publish_version(
    settings: Settings, work: Path, entries: Sequence[Entry], *, made_by: str
) -> tuple[DataVersion, Path, bool]:
    """Make `work/castings` the newest data version, unless the newest holds the same.

    Returns the version, where the folder lies at the end, and whether the version is another
    than before. The bytes are in the cache and the remote before the branch moves.
    """
    folder = work / "castings"
    verify(folder, entries)
    hashes = file_hashes(folder)
    md5 = listing_hash(hashes)
    before, listed = newest(settings)
    listing = listing_text(entries)
    if before and before.md5 == md5 and listing_of(settings.root, before.commit) == listing:
        return before, folder, False
    tree = work / "tree"
    add_worktree(settings, tree)
    target = tree / "data" / "castings"
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
    sizes = {digest: (target / path).stat().st_size for path, digest in hashes.items()}
    drop_cut_objects(object_stores(tree), sizes)
    dvc(tree, "add", "--quiet", "data/castings")
    pointer = (tree / POINTER).read_text()
    if parse_md5(pointer) != md5:
        raise DataError(
            f"DVC recorded another hash than {md5} for the folder",
            hint="check the disk for space and errors, then do the same again",
        )
    verify(target, entries)
    dvc(tree, "push", "--quiet", POINTER)
    message = _message(entries, listed, md5, made_by)
    version = _commit(settings.root, pointer, listing, message, before)
    return version, target, True


def _message(entries: Sequence[Entry], before: Sequence[Entry], md5: str, made_by: str) -> str:
    counts, change = count_entries(entries), compare(before, entries)
    images, castings = (
        ", ".join(f"{count} {label}" for label, count in found.items() if count)
        for found in (counts.images, counts.castings)
    )
    return (
        f"{len(entries)} images ({images}) of {sum(counts.castings.values())} castings "
        f"({castings}), added {len(change.added)}, removed {len(change.removed)}, {md5}\n\n"
        f"Made-by: {made_by}"
    )


def _commit(
    root: Path, pointer: str, listing: str, message: str, before: DataVersion | None
) -> DataVersion:
    blobs = {
        Path(name).name: git(root, "hash-object", "-w", "--stdin", stdin=text)
        for name, text in ((POINTER, pointer), (LISTING, listing))
    }
    lines = (f"100644 blob {blob}\t{name}\n" for name, blob in blobs.items())
    data = git(root, "mktree", stdin="".join(lines))
    tree = git(root, "mktree", stdin=f"040000 tree {data}\tdata\n")
    tip = git(root, "for-each-ref", "--format=%(objectname)", f"refs/heads/{BRANCH}")
    parents = ("-p", tip) if tip else ()
    commit = git_as_product(root, "commit-tree", tree, *parents, "-m", message)
    git(root, "update-ref", f"refs/heads/{BRANCH}", commit, tip or "0" * 40)
    return resolve(root, commit)
