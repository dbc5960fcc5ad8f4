"""Discovery: the castings in any folder that holds Kaggle's layout at some depth."""

from __future__ import annotations

import os
from pathlib import Path

from zdm_ml.data.archive import OTHER_SET
from zdm_ml.data.layout import target_path
from zdm_ml.errors import DataError


def find_images(folder: Path) -> dict[str, str]:
    """Return manifest path -> `split/class/name` of a folder's castings, sorted.

    Hidden folders, links to folders and the 512 px set beside Kaggle's are left alone.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder" if folder.exists() else f"{folder} does not exist",
            hint="name a folder that holds train/ and test/, each with def_front/ and ok_front/",
        )
    files = {}
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".") and name != OTHER_SET]
        for name in names:
            path = Path(parent, name)
            relative = path.relative_to(folder)
            target = target_path((folder.resolve() / relative).parts)
            if target and (path.is_file() or path.is_symlink()):
                files[relative.as_posix()] = target
    return dict(sorted(files.items()))


def _refuse(error: OSError) -> None:
    raise DataError(
        f"folder {error.filename} cannot be read: {error.strerror}",
        hint="correct its owner or mode",
    ) from error
