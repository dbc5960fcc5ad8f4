"""What sets two castings lists apart."""

from __future__ import annotations

from dataclasses import replace

from zdm_ml.data.history import compare
from zdm_ml.data.listing import Entry, count_entries

A = Entry("train/ok_front/a.jpeg", "aa", 10, "p1", True, "train")
B = Entry("train/def_front/b.jpeg", "bb", 10, "p2", True, "test")
C = Entry("test/def_front/c.jpeg", "cc", 10, "p2", True, "test")


def test_a_list_differs_from_itself_in_nothing() -> None:
    found = compare([A, B, C], [A, B, C])

    assert not any(vars(found).values())


def test_added_and_removed_images_bring_and_take_castings() -> None:
    found = compare([A, B], [B, C])

    assert (found.added, found.removed) == ((C.path,), (A.path,))
    assert (found.castings_added, found.castings_removed) == ((), ("p1",))


def test_a_renamed_image_is_neither_added_nor_removed() -> None:
    found = compare([A], [replace(A, path="test/ok_front/other.jpeg")])

    assert (found.added, found.removed, found.relabelled) == ((), (), ())


def test_the_same_bytes_in_the_other_class_are_relabelled() -> None:
    moved = replace(A, path="train/def_front/a.jpeg")

    found = compare([A, B], [moved, B])

    assert found.relabelled == ("train/def_front/a.jpeg",)
    assert (found.added, found.removed) == ((), ())


def test_a_changed_side_names_the_casting() -> None:
    found = compare([A, B, C], [A, replace(B, side="val"), replace(C, side="val")])

    assert found.sides_changed == ("p2",)


def test_a_side_dealt_for_the_first_time_is_no_change() -> None:
    found = compare([replace(A, side="")], [A])

    assert found.sides_changed == ()


def test_a_casting_with_both_labels_counts_as_mixed() -> None:
    census = count_entries([A, replace(B, part="p1"), C])

    assert census.images == {"ok": 1, "defect": 2}
    assert census.castings == {"ok": 0, "defect": 1, "mixed": 1}
