"""Fingerprints: what a turn and a mirror leave unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zdm_ml.data.fingerprints import (
    ANGLES,
    HARMONICS,
    RADII,
    Spectra,
    magnitudes,
    match,
    mean_power,
    pair_similarities,
    similarities,
    spectra,
    whiten,
)

LAW = settings(deadline=None, max_examples=25, derandomize=True)

turns = st.integers(0, ANGLES - 1)
sizes = st.integers(1, 6)


def faces(count: int, seed: int = 0) -> np.ndarray:
    """Made-up faces [count, radii, angles]."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, len(RADII), ANGLES)).astype(np.float32)


def whitened(raw: Spectra) -> Spectra:
    return whiten(raw, mean_power(raw))


@LAW
@given(turn=turns, mirrored=st.booleans(), seed=st.integers(0, 99))
def test_a_turn_and_a_mirror_change_neither_similarity_nor_magnitudes(
    turn: int, mirrored: bool, seed: int
) -> None:
    first, second = faces(2, seed)
    other = np.roll(first[:, ::-1] if mirrored else first, turn, axis=1)
    white = whitened(spectra(np.stack([first, other, second])))

    alike = similarities(white, white)

    assert alike[0, 1] == pytest.approx(1, abs=1e-4)
    assert alike[0, 2] == pytest.approx(alike[1, 2], abs=1e-4)
    assert np.allclose(magnitudes(white)[0], magnitudes(white)[1], atol=1e-5)


@LAW
@given(turn=turns, mirrored=st.booleans())
def test_a_match_gives_the_turn_that_brings_the_second_onto_the_first(
    turn: int, mirrored: bool
) -> None:
    face = faces(1)[0]
    other = np.roll(face[:, ::-1] if mirrored else face, -turn, axis=1)
    left, right = whitened(spectra(np.stack([face, other])))

    found = match(left, right)

    assert (found.similarity, found.mirrored) == (pytest.approx(1, abs=1e-4), mirrored)
    unmirrored = other[:, ::-1] if mirrored else other
    # Reading backwards, sample k becomes sample -1 - k: the face turns one sample further.
    steps = round(found.turn / (2 * np.pi) * ANGLES) + (1 if mirrored else 0)
    assert np.allclose(np.roll(unmirrored, steps, axis=1), face)


@LAW
@given(left=sizes, right=sizes, seed=st.integers(0, 99))
def test_similarities_of_pairs_are_those_of_the_table(left: int, right: int, seed: int) -> None:
    white = whitened(spectra(faces(left + right, seed)))
    pairs = np.array([(a, left + b) for a in range(left) for b in range(right)], dtype=np.int64)

    table = similarities(white[:left], white[left:])
    values = pair_similarities(white, pairs, block=4)

    assert np.allclose(values.reshape(left, right), table, atol=1e-5)
    assert np.allclose(table, similarities(white[left:], white[:left]).T, atol=1e-5)


def test_strangers_are_unlike() -> None:
    white = whitened(spectra(faces(12)))

    alike = similarities(white, white)

    assert np.diag(alike) == pytest.approx(1, abs=1e-4)
    assert alike[~np.eye(12, dtype=bool)].max() < 0.15


def test_no_pairs_have_no_similarities() -> None:
    white = whitened(spectra(faces(2)))

    assert pair_similarities(white, np.empty((0, 2), np.int64)).shape == (0,)


def test_an_empty_face_is_like_nothing() -> None:
    raw = spectra(np.concatenate([faces(3), np.zeros((1, len(RADII), ANGLES), np.float32)]))

    white = whitened(raw)

    assert white.shape == (4, len(RADII), HARMONICS)
    assert np.abs(similarities(white, white)[3]).max() < 1e-6
