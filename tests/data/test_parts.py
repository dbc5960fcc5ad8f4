"""Castings recognised on made-up spectra whose parts are known."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import numpy.typing as npt
import pytest

from zdm_ml.data.fingerprints import (
    ANGLES,
    HARMONICS,
    Spectra,
    magnitudes,
    mean_power,
    pair_similarities,
    whiten,
)
from zdm_ml.data.parts import (
    EXACT_BELOW,
    NEIGHBOURS,
    candidate_pairs,
    describe,
    find_threshold,
    recover,
)

RADII = 8


def spectra_of(sizes: list[int], *, noise: float = 0.6, seed: int = 0) -> Spectra:
    """Noisy, turned and mirrored views, `sizes[k]` of part k, one part after the other."""
    rng = np.random.default_rng(seed)
    own = _noise(rng, len(sizes))[np.repeat(np.arange(len(sizes)), sizes)]
    mirrored = rng.random(len(own)) < 0.5
    own[mirrored] = own[mirrored].conj()
    turns = rng.integers(0, ANGLES, (len(own), 1, 1)) * np.arange(1, HARMONICS + 1)
    raw = own * np.exp(2j * np.pi / ANGLES * turns) + noise * _noise(rng, len(own))
    return whiten(raw.astype(np.complex64), mean_power(raw.astype(np.complex64)))


def _noise(rng: np.random.Generator, count: int) -> npt.NDArray[np.complex128]:
    real, imaginary = rng.standard_normal((2, count, RADII, HARMONICS))
    return np.asarray(real + 1j * imaginary)


def truth_of(sizes: list[int]) -> npt.NDArray[np.int64]:
    """Each image's part, named as `recover` names groups: by the first image."""
    firsts = np.cumsum([0, *sizes[:-1]])
    return np.repeat(firsts, sizes)


def bumps(*parts: tuple[float, float, int], seed: int = 0) -> npt.NDArray[np.float32]:
    """Similarities from some normal distributions (mean, deviation, count)."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(mean, wide, count) for mean, wide, count in parts]).astype(
        np.float32
    )


STRANGERS = bumps((0.08, 0.015, 5000), seed=1)


@pytest.mark.parametrize("siblings", [(0.6, 0.05), (0.45, 0.03), (0.9, 0.02)])
def test_the_threshold_lies_in_the_gap(siblings: tuple[float, float]) -> None:
    values = bumps((*siblings, 3000), (0.14, 0.015, 3000))

    found = find_threshold(values, STRANGERS)

    assert found.clear
    assert 0.2 < found.value < siblings[0] - 3 * siblings[1]
    assert found.gap[0] <= found.value <= found.gap[1]


def test_strangers_alone_have_no_siblings() -> None:
    values = bumps((0.13, 0.01, 3000))

    found = find_threshold(values, STRANGERS)

    assert not found.clear
    assert found.value >= found.floor > values.max()


def test_siblings_alone_stay_above_the_floor() -> None:
    found = find_threshold(bumps((0.7, 0.03, 2000)), STRANGERS)

    assert found.floor <= found.value < 0.6


def test_descriptors_have_unit_length_and_survive_a_turn() -> None:
    white = spectra_of([1] * 80)
    turned = white.conj() * np.exp(2j * np.pi / ANGLES * 77 * np.arange(1, HARMONICS + 1))

    short = describe(magnitudes(np.concatenate([white, turned.astype(np.complex64)])))

    assert np.linalg.norm(short, axis=1) == pytest.approx(1, abs=1e-4)
    assert np.allclose(short[:80], short[80:], atol=1e-4)


def test_candidates_are_each_images_nearest_once() -> None:
    angle = np.array([0.0, 0.1, 0.25, 3.0, 3.1])
    descriptors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    assert candidate_pairs(descriptors, 1).tolist() == [[0, 1], [1, 2], [3, 4]]


def test_the_search_in_cells_finds_the_siblings_that_an_exact_search_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(4)
    own = np.repeat(rng.standard_normal((700, 24)), 6, axis=0)
    values = own + 0.25 * rng.standard_normal(own.shape)
    descriptors = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    assert len(descriptors) > EXACT_BELOW

    quick = candidate_pairs(descriptors, 5)
    monkeypatch.setattr("zdm_ml.data.parts.EXACT_BELOW", len(descriptors))
    exact = candidate_pairs(descriptors, 5)

    siblings = [{(a, b) for a, b in pairs.tolist() if a // 6 == b // 6} for pairs in (quick, exact)]
    assert len(siblings[0] & siblings[1]) >= 0.99 * len(siblings[1])


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([6] * 30, id="even"),
        pytest.param([1] * 60, id="all alone"),
        pytest.param([25, 1, 1, 8, 2, 2, 3, 12], id="uneven"),
        pytest.param([2] * 40, id="pairs"),
        pytest.param([2], id="one pair"),
        pytest.param([40], id="all the same"),
        pytest.param([1, 1], id="two strangers"),
        pytest.param([2, 1, 3], id="six images"),
        pytest.param([30, 30], id="two parts"),
    ],
)
def test_castings_are_recognised(sizes: list[int]) -> None:
    found = recover(spectra_of(sizes))

    assert found.group.tolist() == truth_of(sizes).tolist()


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_siblings(count: int) -> None:
    found = recover(spectra_of([1])[:count])

    assert found.group.tolist() == list(range(count))
    assert found.nearest.tolist() == [-1] * count
    assert found.confidence.tolist() == [1] * count
    assert not found.threshold.clear


def test_the_nearest_image_is_a_sibling_with_its_similarity() -> None:
    sizes = [5] * 20
    white, truth = spectra_of(sizes), truth_of(sizes)

    found = recover(white)

    pairs = np.stack([np.arange(100), found.nearest], axis=1)
    assert (truth[found.nearest] == truth).all()
    assert found.similarity == pytest.approx(pair_similarities(white, pairs), abs=1e-5)
    assert found.confidence.min() > 0.5


def test_two_recoveries_agree() -> None:
    first, second = (recover(spectra_of([4] * 25, noise=0.9)) for _ in range(2))

    for field in fields(first):
        assert np.array_equal(getattr(first, field.name), getattr(second, field.name))


def test_more_views_than_neighbours_are_one_casting() -> None:
    sizes = [5 * NEIGHBOURS, 4 * NEIGHBOURS, *[9] * 8]

    found = recover(spectra_of(sizes, noise=0.8))

    assert found.group.tolist() == truth_of(sizes).tolist()


def test_castings_of_two_looks_are_suspects_and_not_one_group() -> None:
    rng = np.random.default_rng(8)
    sizes = [8] * 12
    raw = spectra_of(sizes, noise=0.3).astype(np.complex128)
    common = raw[0] + 0.1 * np.linalg.norm(raw[0]) / np.sqrt(RADII * HARMONICS) * _noise(rng, 1)
    raw[8:16] += 0.45 * common
    white = whiten(raw.astype(np.complex64), mean_power(raw.astype(np.complex64)))

    found = recover(white)

    assert set(found.group[8:16].tolist()).isdisjoint(found.group[:8].tolist())
    first = found.suspects[0]
    assert {int(found.group[first.left]), int(found.group[first.right])} == {0, 8}
    assert first.similarity < found.threshold.value
