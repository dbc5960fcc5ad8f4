"""Checkout: the images and the castings list of a data version, put where stages read them."""

from __future__ import annotations

import logging
import shutil
import uuid
from pathlib import Path

from filelock import FileLock

from zdm_ml.data.identity import dvc_folder_hash, file_hashes, folder_object, listing_hash
from zdm_ml.data.integrity import MEMORY_FILE, Damage, find_damage
from zdm_ml.data.listing import Entry
from zdm_ml.data.objects import drop_damaged_objects, folder_objects, object_path
from zdm_ml.data.versions import (
    LISTING,
    POINTER,
    DataVersion,
    entries_of,
    listing_of,
    parse_md5,
    pointer_text,
    resolve,
    versions,
)
from zdm_ml.errors import DataError, PipelineError
from zdm_ml.files import write_text
from zdm_ml.pipeline.commands import dvc
from zdm_ml.pipeline.workspace import add_worktree, object_stores, remove_worktree
from zdm_ml.settings import Settings, make_home

logger = logging.getLogger(__name__)


def checkout_version(settings: Settings, wanted: str = "latest") -> DataVersion:
    """Put a data version into this checkout; images of no version are kept aside."""
    version = resolve(settings.root, wanted)
    with FileLock(make_home(settings.home) / "locks" / "data.lock"):
        tree = settings.home / "incoming-data" / uuid.uuid4().hex[:8]
        try:
            add_worktree(settings, tree)
            checkout_data(settings, tree, version.commit)
            place(settings, tree / "data" / "castings", listing_of(settings.root, version.commit))
        finally:
            remove_worktree(settings, tree)
    return version


def place(settings: Settings, folder: Path, listing: str | None) -> None:
    """Put a folder of castings and its list where the pipeline of this checkout reads them.

    The old list goes first and the new one comes last: whoever is killed between leaves images
    without a list, which every stage refuses. Images that no data version holds are kept.
    """
    target = settings.root / "data" / "castings"
    incoming, old = (target.with_name(f".castings.{name}") for name in ("incoming", "old"))
    (settings.root / LISTING).unlink(missing_ok=True)
    for leftover in (incoming, old):
        shutil.rmtree(leftover, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    shutil.move(folder, incoming)  # the state folder may lie on another disk
    if target.exists():
        _keep_unknown(settings, target)
        target.rename(old)
    incoming.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    if listing is not None:
        write_text(settings.root / LISTING, listing)


def _keep_unknown(settings: Settings, folder: Path) -> None:
    if dvc_folder_hash(folder) in {version.md5 for version in versions(settings.root)}:
        return
    kept = settings.home / "replaced" / f"castings-{uuid.uuid4().hex[:8]}"
    copy = kept.with_name(f".{kept.name}")
    try:
        shutil.copytree(folder, copy)
        copy.rename(kept)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    logger.warning("data/castings held images of no data version: kept in %s", kept)


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
    """Fill a worktree with a data version, verified; what the cache lacks is pulled.

    An object of the cache that is damaged is dropped and pulled anew. Raises `DataError` that
    names the images whose bytes cannot be had; the castings list is written only when all can.
    """
    pointer = pointer_text(settings.root, commit)
    md5 = parse_md5(pointer)
    listing, entries = listing_of(settings.root, commit), entries_of(settings.root, commit)
    (tree / LISTING).unlink(missing_ok=True)
    (tree / MEMORY_FILE).unlink(missing_ok=True)
    write_text(tree / POINTER, pointer)
    trouble = _fetch(tree, md5)
    damage = _damage(tree, md5, entries)
    if damage:
        logger.warning("damaged in the DVC cache, fetched anew: %s", damage)
        trouble = _refetch(tree, md5, damage)
        damage = _damage(tree, md5, entries)
    if damage:
        damage = _lost(tree, md5) or damage
        logger.debug("%s", trouble)
        raise DataError(
            f"images of data version {commit[:12]} are whole neither in the DVC cache nor in its "
            f"remote: {damage}",
            hint="restore the remote from a backup, or import these images again",
        )
    _restore_folder_object(tree, md5)
    if listing is not None:
        write_text(tree / LISTING, listing)


def _restore_folder_object(tree: Path, md5: str) -> None:
    """Put a lost `.dir` object back: DVC may do without it, but its gc forgets the files."""
    path = object_path(object_stores(tree)[0], md5)
    if path.is_file():
        return
    hashes = file_hashes(tree / "data" / "castings")
    if listing_hash(hashes) == md5:
        write_text(path, folder_object(hashes))


def _fetch(tree: Path, md5: str) -> str:
    """Check the images out, pulling what is not in the cache; return what went wrong."""
    drop_damaged_objects(object_stores(tree)[0], [md5])
    try:
        dvc(tree, "checkout", "--quiet", "--force", POINTER)
    except PipelineError:
        return _pull(tree)
    return ""


def _refetch(tree: Path, md5: str, damage: Damage) -> str:
    cache = object_stores(tree)[0]
    objects = folder_objects(cache, md5)
    drop_damaged_objects(cache, [objects[path] for path in damage.broken if path in objects])
    for path in (*damage.broken, *damage.extra):
        (tree / "data" / "castings" / path).unlink(missing_ok=True)
    return _pull(tree)


def _pull(tree: Path) -> str:
    try:
        dvc(tree, "pull", "--quiet", "--force", POINTER)
    except PipelineError as error:
        return str(error)
    return ""


def _lost(tree: Path, md5: str) -> Damage:
    """Return the images whose objects are not in the cache after a pull has failed."""
    cache = object_stores(tree)[0]
    objects = folder_objects(cache, md5).items()
    return Damage(
        missing=tuple(path for path, digest in objects if not object_path(cache, digest).is_file())
    )


def _damage(tree: Path, md5: str, entries: list[Entry] | None) -> Damage:
    """Compare the images with the castings list, or with the folder hash where there is none."""
    folder = tree / "data" / "castings"
    if entries is not None:
        return find_damage(folder, entries, memory=tree / MEMORY_FILE)
    if dvc_folder_hash(folder) == md5:
        return Damage()
    return Damage(altered=tuple(folder_objects(object_stores(tree)[0], md5)) or ("every image",))
