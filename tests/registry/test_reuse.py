"""What is said of test castings that chose often."""

from __future__ import annotations

from dataclasses import replace

from castings_rows import image

from zdm_ml.registry.reuse import Reuse, digest_of_test_castings


def test_only_the_test_castings_identify_the_set() -> None:
    rows = [replace(image("a", 0, "ok"), split="test"), replace(image("b", 0, "ok"), split="train")]

    assert digest_of_test_castings(rows) == digest_of_test_castings(rows[:1])
    assert digest_of_test_castings(rows) != digest_of_test_castings(rows[1:])


def test_a_worn_set_is_warned_of() -> None:
    assert not Reuse(19, 20).worn
    assert Reuse(20, 20).sentence == (
        "these test castings have been used 20 times to choose a model (warning from 20 on): their"
        " figures flatter by now"
    )
    assert Reuse(1, 20).sentence.endswith("used once to choose a model")
