"""The lockbox: castings that no experiment sees, to be scored once, at the end of all choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zdm_ml.data.listing import Census, Entry, count_entries
from zdm_ml.data.manifest import Row
from zdm_ml.data.redealing import newest_opened
from zdm_ml.data.sides import LEAST, LOCKBOX, group_castings, rank
from zdm_ml.data.versions import DataVersion, entries_of
from zdm_ml.errors import DataError
from zdm_ml.params import Params
from zdm_ml.settings import Settings

MADE_BY = "lockbox"


@dataclass(frozen=True)
class Locked:
    """The data version with the lockbox, and what lies in it."""

    version: DataVersion
    census: Census


def set_aside(
    settings: Settings,
    params: Params,
    *,
    share: float,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Locked:
    """Make a data version of the same images in which a share of the castings is locked away.

    Drawn by `seed`, class by class; castings that may be one go together. Raises `DataError` when
    there is a lockbox already, or when too few castings are left for a split.
    """
    with newest_opened(settings, params, progress) as opened:
        _check_none(opened.listed, opened.before)
        chosen = draw(opened.rows, share, seed)
        version = opened.publish(dict.fromkeys(chosen, LOCKBOX), MADE_BY)
    listed = entries_of(settings.root, version.commit) or []
    return Locked(version, count_entries(entry for entry in listed if entry.side == LOCKBOX))


def draw(rows: Sequence[Row], share: float, seed: int) -> set[str]:
    """Return the parts of a share of each class' families, at least two of each class."""
    castings = group_castings(rows, seed)
    chosen: set[str] = set()
    for families in castings.families.values():
        wanted = max(LEAST, round(share * len(families)))
        ordered = sorted(families, key=lambda family: rank(seed, f"lockbox:{family}"))
        left = [family for family in ordered if family not in chosen]
        chosen |= set(left[: max(0, wanted - (len(ordered) - len(left)))])
    return {part for part, family in castings.family.items() if family in chosen}


def _check_none(listed: Sequence[Entry], version: DataVersion) -> None:
    locked = {entry.part for entry in listed if entry.side == LOCKBOX}
    if locked:
        raise DataError(
            f"data version {version.commit[:12]} has a lockbox of {len(locked)} castings",
            hint="one lockbox is drawn once: a second draw would look into the first",
        )
