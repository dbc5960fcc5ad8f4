"""Data versions: commits on the branch `zdm/data`, each naming one DVC-tracked folder."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from filelock import FileLock

from zdm_ml.data.archive import Staged, stage_source
from zdm_ml.data.identity import dvc_folder_hash
from zdm_ml.data.manifest import CLASSES
from zdm_ml.errors import DataError, PipelineError
from zdm_ml.files import write_text
from zdm_ml.pipeline.commands import dvc, git, git_as_product, head_commit
from zdm_ml.pipeline.workspace import add_worktree, remove_worktree
from zdm_ml.settings import Settings, make_home

logger = logging.getLogger(__name__)

BRANCH = "zdm/data"
POINTER = "data/castings.dvc"


@dataclass(frozen=True)
class DataVersion:
    """One commit on the data branch; `md5` is DVC's hash of the folder, ending in `.dir`."""

    commit: str
    md5: str
    date: str
    message: str


@dataclass(frozen=True)
class Imported:
    """What an import did; `staged` counts images and names quarantined files."""

    staged: Staged
    version: DataVersion
    changed: bool


def versions(root: Path) -> list[DataVersion]:
    """Return all data versions, the newest first."""
    if not git(root, "for-each-ref", f"refs/heads/{BRANCH}"):
        return []
    lines = git(root, "log", "--format=%H%x09%cI%x09%s", BRANCH).splitlines()
    return [
        DataVersion(commit, _md5(root, commit), date, message)
        for commit, date, message in (line.split("\t", 2) for line in lines)
    ]


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


def import_data(
    settings: Settings,
    source: Path,
    *,
    max_pixels: int,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Verify the images of `source` and make them the newest data version.

    Nothing is visible before the branch moves, and the branch moves once the bytes are in the
    cache and the remote: a crash anywhere leaves the previous version.
    """
    home = make_home(settings.home)
    head_commit(settings.root)
    with FileLock(home / "locks" / "data.lock"):
        shutil.rmtree(home / "incoming", ignore_errors=True)
        git(settings.root, "worktree", "prune")
        work = home / "incoming" / uuid.uuid4().hex[:8]
        try:
            staged = stage_source(
                source,
                work / "castings",
                quarantine=home / "quarantine",
                max_pixels=max_pixels,
                progress=progress,
            )
            return _commit_staged(settings, work, staged)
        finally:
            shutil.rmtree(home / "incoming", ignore_errors=True)
            git(settings.root, "worktree", "prune")


def _commit_staged(settings: Settings, work: Path, staged: Staged) -> Imported:
    folder = work / "castings"
    md5 = dvc_folder_hash(folder)
    known = versions(settings.root)
    if known and known[0].md5 == md5:
        place(settings, folder)
        return Imported(staged, known[0], changed=False)
    tree = work / "tree"
    add_worktree(settings, tree)
    target = tree / "data" / "castings"
    target.parent.mkdir(exist_ok=True)
    folder.rename(target)
    dvc(tree, "add", "--quiet", "data/castings")
    pointer = (tree / POINTER).read_bytes()
    if _parse_md5(pointer.decode()) != md5:
        raise DataError(
            f"DVC recorded another hash than {md5} for the imported folder",
            hint="check the disk for space and errors, then import again",
        )
    dvc(tree, "push", "--quiet", POINTER)
    version = _commit_pointer(
        settings.root, pointer, md5, staged, known[0].commit if known else None
    )
    place(settings, target)
    return Imported(staged, version, changed=True)


def _commit_pointer(
    root: Path, pointer: bytes, md5: str, staged: Staged, parent: str | None
) -> DataVersion:
    blob = git(root, "hash-object", "-w", "--stdin", stdin=pointer.decode())
    data = git(root, "mktree", stdin=f"100644 blob {blob}\tcastings.dvc\n")
    tree = git(root, "mktree", stdin=f"040000 tree {data}\tdata\n")
    classes = {
        label: sum(counts[label] for counts in staged.per_split.values()) for label in CLASSES
    }
    shares = ", ".join(f"{count} {label}" for label, count in classes.items())
    message = f"{staged.images} images ({shares}), {md5}"
    parents = ("-p", parent) if parent else ()
    commit = git_as_product(root, "commit-tree", tree, *parents, "-m", message)
    git(root, "update-ref", f"refs/heads/{BRANCH}", commit, parent or "0" * 40)
    return resolve(root, commit)


def place(settings: Settings, folder: Path) -> None:
    """Put an imported folder where the pipeline of this checkout reads it.

    What lies there goes, unless no data version holds it: then it is kept in the state folder.
    """
    target = settings.root / "data" / "castings"
    incoming, old = (target.with_name(f".castings.{name}") for name in ("incoming", "old"))
    for leftover in (incoming, old):
        shutil.rmtree(leftover, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    shutil.move(folder, incoming)  # the state folder may lie on another disk
    if target.exists():
        if dvc_folder_hash(target) not in {version.md5 for version in versions(settings.root)}:
            kept = settings.home / "replaced" / f"castings-{uuid.uuid4().hex[:8]}"
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(target, kept)
            logger.warning("data/castings held images of no data version: kept in %s", kept)
        target.rename(old)
    incoming.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def materialise(settings: Settings, md5: str) -> Path:
    """Return a folder that holds exactly the images of a data version."""
    folder = settings.home / "data" / md5.removesuffix(".dir")
    with FileLock(make_home(settings.home) / "locks" / "materialise.lock"):
        if not folder.is_dir():
            tree = settings.home / "incoming-data" / uuid.uuid4().hex[:8]
            try:
                add_worktree(settings, tree)
                checkout_data(settings, tree, resolve(settings.root, md5).commit)
                folder.parent.mkdir(exist_ok=True)
                (tree / "data" / "castings").rename(folder)
            finally:
                remove_worktree(settings, tree)
    return folder


def checkout_data(settings: Settings, tree: Path, commit: str) -> None:
    """Fill `data/castings` of a worktree with a data version; what the cache lacks is pulled."""
    write_text(tree / POINTER, pointer_text(settings.root, commit))
    try:
        dvc(tree, "checkout", "--quiet", "--force", POINTER)
    except PipelineError:
        dvc(tree, "pull", "--quiet", "--force", POINTER)


def _md5(root: Path, commit: str) -> str:
    return _parse_md5(pointer_text(root, commit))


def _parse_md5(pointer: str) -> str:
    try:
        md5 = yaml.safe_load(pointer)["outs"][0]["md5"]
    except (yaml.YAMLError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{POINTER} is empty or damaged", hint="import the data again") from error
    return str(md5)
