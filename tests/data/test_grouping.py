"""Groups grow by the support of their members, not by single pairs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from zdm_ml.data.grouping import ORPHANS, Groups

LAW = settings(deadline=None, max_examples=60, derandomize=True)
LIMIT = 0.5

Table = npt.NDArray[np.float32]


def blocks(sizes: list[int], *, within: float = 0.8, across: float = 0.1) -> Table:
    """Similarities of items that form groups of these sizes."""
    truth = np.repeat(np.arange(len(sizes)), sizes)
    return np.where(truth[:, None] == truth, within, across).astype(np.float32)


def grouped(table: Table) -> Groups:
    return Groups(len(table), lambda left, right: table[np.ix_(left, right)], LIMIT)


def pairs_above(table: Table, least: float = LIMIT) -> list[tuple[int, int]]:
    """The pairs of a table, the most similar first."""
    left, right = np.triu_indices(len(table), 1)
    order = np.argsort(-table[left, right], kind="stable")
    return [(int(left[at]), int(right[at])) for at in order if table[left[at], right[at]] >= least]


def partition(labels: npt.NDArray[np.int64]) -> set[frozenset[int]]:
    return {
        frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels).tolist()
    }


def test_each_item_starts_alone_and_similar_ones_join() -> None:
    table = blocks([4, 3, 1])
    groups = grouped(table)
    alone = groups.labels

    merges = groups.merge(pairs_above(table))

    assert alone.tolist() == list(range(8))
    assert merges == 5
    assert groups.labels.tolist() == [0, 0, 0, 0, 4, 4, 4, 7]


def test_one_false_pair_does_not_chain_two_groups() -> None:
    table = blocks([6, 6])
    table[2, 9] = table[9, 2] = 0.75
    groups = grouped(table)

    groups.merge(pairs_above(table))

    assert partition(groups.labels) == {frozenset(range(6)), frozenset(range(6, 12))}


def test_a_false_pair_that_comes_first_binds_two_images_at_most() -> None:
    table = blocks([6, 6])
    table[2, 9] = table[9, 2] = 0.99
    groups = grouped(table)

    groups.merge(pairs_above(table))

    assert max(len(members) for members in partition(groups.labels)) <= 7


def test_a_missing_pair_does_not_split_a_group() -> None:
    table = blocks([6])
    table[1, 4] = table[4, 1] = 0.2
    groups = grouped(table)

    groups.merge(pairs_above(table))

    assert len(partition(groups.labels)) == 1


def test_a_refused_merge_is_tried_again_when_a_group_has_grown() -> None:
    table = blocks([2, 4])
    table[:2, 2:] = table[2:, :2] = 0.7
    table[0, 2] = table[2, 0] = table[1, 2] = table[2, 1] = 0.05
    groups = grouped(table)

    groups.merge([(0, 1), (0, 2), (2, 3), (3, 4), (4, 5), (1, 5)])

    assert len(partition(groups.labels)) == 1


def test_orphans_are_adopted_by_the_group_that_they_are_most_like() -> None:
    table = blocks([5, 5, 1])
    table[10, :5] = table[:5, 10] = 0.35
    table[10, 5:10] = table[5:10, 10] = 0.45
    groups = grouped(table)
    groups.merge(pairs_above(table))

    adopted = groups.adopt([(0, 10), (5, 10)], least=0.4)

    assert adopted == 1
    assert groups.labels[10] == groups.labels[5] != groups.labels[0]


def test_an_orphan_that_is_like_one_member_alone_is_not_adopted() -> None:
    table = blocks([5, 1])
    table[0, 5] = table[5, 0] = 0.9
    groups = grouped(table)
    groups.merge(pairs_above(blocks([5, 1])))

    adopted = groups.adopt([(0, 5)], least=0.4)

    assert adopted == 0
    assert groups.labels[5] == 5


def test_large_groups_are_never_adopted() -> None:
    table = blocks([ORPHANS + 1, 6], across=0.45)
    groups = grouped(table)
    groups.merge(pairs_above(table))

    assert groups.adopt([(0, ORPHANS + 1)], least=0.4) == 0


def test_representatives_are_members_of_every_group() -> None:
    table = blocks([7, 2, 1])
    groups = grouped(table)
    groups.merge(pairs_above(table))

    chosen = groups.representatives(most=3)

    assert len(chosen) == 3 + 2 + 1
    assert set(groups.labels[chosen].tolist()) == {0, 7, 9}


@LAW
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6), data=st.data())
def test_neither_the_order_of_equal_pairs_nor_of_images_changes_clear_groups(
    sizes: list[int], data: st.DataObject
) -> None:
    order = np.array(data.draw(st.permutations(range(sum(sizes)))))
    table = blocks(sizes)[np.ix_(order, order)]
    truth = np.repeat(np.arange(len(sizes)), sizes)[order]
    groups = grouped(table)

    groups.merge(data.draw(st.permutations(pairs_above(table))))

    assert partition(groups.labels) == partition(truth)


@LAW
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=5), seed=st.integers(0, 999))
def test_labels_are_first_members_and_merging_again_changes_nothing(
    sizes: list[int], seed: int
) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.2, (sum(sizes), sum(sizes)))
    table = (blocks(sizes) + (noise + noise.T) / 2).astype(np.float32)
    groups = grouped(table)
    groups.merge(pairs_above(table))
    labels = groups.labels

    assert all(int(min(members)) == labels[min(members)] for members in partition(labels))
    assert len(partition(labels)) == len(np.unique(labels))


def test_one_false_pair_gives_two_groups_no_support() -> None:
    table = blocks([6, 6])
    table[2, 8] = table[8, 2] = 0.9
    groups = grouped(table)

    assert groups.support(0, 6) < 0.2
