"""Uptake: whether a retraining has taken up a data version, and when to tell again that none has.

An event that told of the version may have been lost: it is told again, at growing intervals,
because a retraining that is under way may take a day before the next one starts.
"""

from __future__ import annotations

import time

from zdm_ml.data.versions import INTAKE, POINTER, DataVersion, parse_md5, read_blobs
from zdm_ml.errors import DataError
from zdm_ml.files import read_json, write_json
from zdm_ml.pipeline.commands import git
from zdm_ml.settings import Settings

FIRST_WAIT = 900.0
"""Seconds between the second and the third telling; doubled for each further one."""


def is_pending(settings: Settings, version: DataVersion | None) -> bool:
    """Tell whether an intake made this version and no retraining has taken up its images."""
    if version is None or version.made_by != INTAKE:
        return False
    return version.md5 not in _planned(settings) | _published(settings)


def tell(settings: Settings, version: DataVersion) -> bool:
    """Tell whether it is time to announce a pending version, and remember that it was done."""
    path = settings.home / "intake.json"
    try:
        memory = read_json(path)
        times = int(memory["times"]) if memory["md5"] == version.md5 else 0
        last = float(memory["last"])
    except (OSError, ValueError, KeyError, TypeError):
        times, last = 0, 0.0
    wait = FIRST_WAIT * 2 ** (times - 2) if times >= 2 else 0.0
    if time.time() - last < wait:
        return False
    write_json(path, {"md5": version.md5, "times": times + 1, "last": time.time()})
    return True


def _planned(settings: Settings) -> set[str]:
    found = set()
    for record in (settings.home / "runs").glob("*/.zdm-run.json"):
        try:
            found.add(str(read_json(record)["data_md5"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _published(settings: Settings) -> set[str]:
    tags = git(settings.root, "tag", "--list", "run/*").splitlines()
    found = set()
    for pointer in read_blobs(settings.root, [f"{tag}:{POINTER}" for tag in tags]):
        try:
            found.add(parse_md5(pointer or ""))
        except DataError:
            continue
    return found
