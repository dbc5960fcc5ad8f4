"""Which castings a rotation of the test side proposes."""

from __future__ import annotations

from castings_rows import castings, related

from zdm_ml.data.manifest import Row, Split
from zdm_ml.data.rotation import Rotation, propose


def sides(rows: list[Row], **named: set[str]) -> dict[str, Split]:
    """Everything trains but what is named."""
    found: dict[str, Split] = {row.part: "train" for row in rows}
    for side, parts in named.items():
        found |= dict.fromkeys(parts, side)  # type: ignore[arg-type]  # names of sides
    return found


TESTING = {"ok0", "ok1", "defect0", "defect1"}
LOCKED = {"ok2", "defect2"}
SEEN = {f"{label}{n}" for label in ("ok", "defect") for n in range(3, 8)}


def fresh(rotation: Rotation) -> set[str]:
    return {part for parts in rotation.fresh.values() for part in parts}


def test_as_many_castings_as_test_now_come_from_those_the_champion_never_saw() -> None:
    rows = castings(12, 12)

    rotation = propose(rows, sides(rows, test=TESTING, lockbox=LOCKED), SEEN, 0)

    assert {label: len(parts) for label, parts in rotation.fresh.items()} == {"ok": 2, "defect": 2}
    assert not fresh(rotation) & (TESTING | LOCKED | SEEN)
    assert not any(rotation.missing.values())
    assert rotation.sides == dict.fromkeys(TESTING, "train") | dict.fromkeys(
        fresh(rotation), "test"
    )


def test_a_casting_that_may_be_one_the_champion_saw_is_not_fresh() -> None:
    rows = related(castings(12, 10), {"ok3", "ok8", "ok9"}, {"defect0", "defect8"})

    rotation = propose(rows, sides(rows, test=TESTING, lockbox=LOCKED), SEEN, 0)

    assert set(rotation.fresh["ok"]) == {"ok10", "ok11"}
    assert set(rotation.fresh["defect"]) == {"defect9"}
    assert rotation.missing == {"ok": 0, "defect": 1}


def test_without_new_castings_everything_is_missing() -> None:
    rows = castings(8, 8)

    rotation = propose(rows, sides(rows, test=TESTING, lockbox=LOCKED), SEEN, 0)

    assert fresh(rotation) == set()
    assert rotation.missing == {"ok": 2, "defect": 2}
