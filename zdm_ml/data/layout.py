"""The folder layout of a castings dataset, and what makes one complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from zdm_ml.data.manifest import CLASSES, Label
from zdm_ml.errors import DataError

SHIPPED_SPLITS = ("train", "test")
CLASS_FOLDERS: Mapping[str, Label] = {"def_front": "defect", "ok_front": "ok"}
MIN_IMAGES = 20

Counts = dict[str, dict[str, int]]
"""Images per shipped split and class."""

Progress = Callable[[int, int], None]
"""Called with the work done so far and the work in all."""

HINT = "expected folders train/ and test/, each with def_front/ and ok_front/"


def target_path(parts: tuple[str, ...]) -> str | None:
    """Return `split/class/name` for the parts of a path that end so, else None.

    Whatever folders lie around are dropped; files that only an operating system made are no
    images.
    """
    if len(parts) < 3 or "__MACOSX" in parts or parts[-1].startswith("."):
        return None
    split, folder, name = parts[-3:]
    if split not in SHIPPED_SPLITS or folder not in CLASS_FOLDERS or name == "Thumbs.db":
        return None
    return f"{split}/{folder}/{name}"


def image_paths(folder: Path) -> list[str]:
    """Return the sorted `split/class/name` of every file in a dataset folder, dead links too."""
    found = (
        path.relative_to(folder)
        for split in SHIPPED_SPLITS
        for class_folder in CLASS_FOLDERS
        for path in (folder / split / class_folder).glob("*")
        if not path.is_dir()
    )
    return sorted(target for path in found if (target := target_path(path.parts)))


def count_images(paths: Iterable[str]) -> Counts:
    """Count `split/class/name` paths, with zeros for what is absent."""
    counts: Counts = {split: dict.fromkeys(CLASSES, 0) for split in SHIPPED_SPLITS}
    for path in paths:
        split, folder, _ = path.split("/")
        counts[split][CLASS_FOLDERS[folder]] += 1
    return counts


def check_complete(counts: Counts, source: str) -> None:
    """Raise `DataError` naming what a dataset lacks: images, a class, a folder, enough of them."""
    total = sum(sum(by_class.values()) for by_class in counts.values())
    if total == 0:
        raise DataError(f"{source} holds no castings", hint=HINT)
    for folder, label in CLASS_FOLDERS.items():
        if not any(counts[split][label] for split in SHIPPED_SPLITS):
            raise DataError(
                f"{source} has one class only: no {label} images (folder {folder})", hint=HINT
            )
    empty = [
        f"{split}/{folder}"
        for split in SHIPPED_SPLITS
        for folder, label in CLASS_FOLDERS.items()
        if not counts[split][label]
    ]
    if empty:
        raise DataError(f"{source} has no images in {', '.join(empty)}", hint=HINT)
    if total < MIN_IMAGES:
        raise DataError(
            f"{source} has {total} usable images, at least {MIN_IMAGES} are needed",
            hint="add labelled images",
        )
