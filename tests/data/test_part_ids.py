"""Part ids: what is known wins, gaps are filled, and ids stay."""

from __future__ import annotations

import hashlib
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from zdm_ml.data.part_ids import PartId, name_parts

LAW = settings(deadline=None, max_examples=60, derandomize=True)

groupings = st.lists(st.integers(0, 6), min_size=1, max_size=20)


def sha(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def named(
    groups: list[int],
    *,
    known: dict[str, str] | None = None,
    remembered: dict[str, str] | None = None,
    digests: list[str] | None = None,
) -> list[PartId]:
    """Name images p0, p1, ... whose bytes hash to sha(0), sha(1), ... unless given."""
    return name_parts(
        [f"p{place}" for place in range(len(groups))],
        digests or [sha(place) for place in range(len(groups))],
        groups,
        known=known or {},
        remembered=remembered or {},
    )


def test_a_known_part_wins_over_a_remembered_one() -> None:
    ids = named([0, 0], known={"p0": "serial-7"}, remembered={sha(0): "old", sha(1): "old"})

    assert ids == [PartId("serial-7", "known"), PartId("old", "remembered")]


def test_an_image_without_a_name_joins_the_known_part_of_its_group() -> None:
    ids = named([0, 0, 0, 0], known={"p0": "serial-7"}, remembered={sha(1): "old", sha(2): "old"})

    assert ids[3] == PartId("serial-7", "recognised")


def test_an_image_without_a_name_joins_the_part_that_most_of_its_group_have() -> None:
    ids = named([0] * 4, remembered={sha(0): "a", sha(1): "b", sha(2): "b"})
    tied = named([0] * 3, remembered={sha(0): "b", sha(1): "a"})

    assert ids[3].part == "b"
    assert tied[2].part == "a"


def test_known_parts_are_not_merged_by_looks() -> None:
    ids = named([0, 0], known={"p0": "serial-1", "p1": "serial-2"})

    assert [each.part for each in ids] == ["serial-1", "serial-2"]


def test_a_fresh_id_never_is_one_that_is_taken() -> None:
    fresh = named([0])[0].part

    ids = named([0, 1], known={"p1": fresh})

    assert ids[0].part != fresh
    assert ids[0].part.startswith(fresh)


def test_groups_whose_smallest_digests_begin_alike_have_ids_of_their_own() -> None:
    digests = ["0123456789" + letter * 54 for letter in "ab"]

    first, second = named([0, 1], digests=digests)

    assert first.part == "part-0123456789"
    assert second.part == "part-0123456789b"


@LAW
@given(groups=groupings)
def test_without_names_parts_are_the_groups(groups: list[int]) -> None:
    parts = defaultdict(set)

    for group, each in zip(groups, named(groups), strict=True):
        parts[group].add(each.part)

    assert all(len(found) == 1 for found in parts.values())
    assert len(set.union(*parts.values())) == len(parts)


@LAW
@given(groups=groupings, data=st.data())
def test_ids_do_not_depend_on_the_order_of_images(groups: list[int], data: st.DataObject) -> None:
    places = list(range(len(groups)))
    order = data.draw(st.permutations(places))
    remembered = {sha(place): "old" for place in places if place % 5 == 4}

    def run(chosen: list[int]) -> dict[str, str]:
        digests = [sha(place) for place in chosen]
        ids = name_parts(
            [f"p{place}" for place in chosen],
            digests,
            [groups[place] for place in chosen],
            known={"p0": "serial"},
            remembered=remembered,
        )
        return {digest: each.part for digest, each in zip(digests, ids, strict=True)}

    assert run(places) == run(order)


@LAW
@given(groups=groupings, more=groupings)
def test_remembered_images_keep_their_parts_when_images_are_added(
    groups: list[int], more: list[int]
) -> None:
    before = named(groups)
    remembered = {sha(place): each.part for place, each in enumerate(before)}

    after = named(groups + more, remembered=remembered)

    assert [each.part for each in after[: len(groups)]] == [each.part for each in before]
    assert all(
        after[len(groups) + place].part == before[groups.index(group)].part
        for place, group in enumerate(more)
        if group in groups
    )
