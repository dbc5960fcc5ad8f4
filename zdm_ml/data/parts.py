"""Which images show the same casting, recognised by its looks.

Each image gets a fingerprint that no turn, mirroring, zoom, shear or lighting changes much. Near
neighbours in a short descriptor are candidates, the correlation of their faces decides, and the
limit between siblings and strangers is read off the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zdm_ml.data.fingerprints import Spectra, magnitudes, pair_similarities, similarities
from zdm_ml.data.grouping import Groups

NEIGHBOURS = 12
DIMENSIONS = 96
SAMPLE = 2000
EXACT_BELOW = 4000
"""Up to this many images the neighbour search is exact; beyond it looks into nearby cells only."""

FEW = 20
TYPICAL = 0.4
"""The limit where the data cannot tell it: fewer than `FEW` images, or nearly all of one casting.
On datasets that can tell, it lay between 0.36 and 0.47."""


@dataclass(frozen=True)
class Threshold:
    """Siblings are at least `value` alike; `gap` holds the strangers' and siblings' near ends.

    Strangers at random stay below `floor`; `clear` tells whether the two kinds are apart at all.
    """

    value: float
    gap: tuple[float, float]
    floor: float
    clear: bool


UNREAD = Threshold(TYPICAL, (TYPICAL, TYPICAL), TYPICAL, clear=False)


@dataclass(frozen=True)
class Suspect:
    """Two images of different groups that are, like their groups, more alike than strangers."""

    left: int
    right: int
    similarity: float


@dataclass(frozen=True)
class Recovery:
    """Groups of images that show one casting.

    `group` [N] numbers each image's group, `nearest` [N] is the most similar other image (-1:
    none), `similarity` [N] to it, `confidence` [N] in [0, 1] in the group. `suspects` has one pair
    for two groups that may show one casting, photographed anew: the most similar come first.
    """

    group: npt.NDArray[np.int64]
    nearest: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    threshold: Threshold
    suspects: list[Suspect]


def recover(white: Spectra) -> Recovery:
    """Group N images by their whitened spectra [N, radii, harmonics].

    Deterministic. Time grows a little faster than N: the search looks into a few cells of about
    4 sqrt(N).
    """
    count = len(white)
    if count < 2:
        alone = np.zeros(count, dtype=np.float32)
        nearest = np.full(count, -1, dtype=np.int64)
        return Recovery(
            np.arange(count), nearest, alone, alone + 1, Threshold(1.0, (0, 1), 1, False), []
        )
    descriptors = describe(magnitudes(white))
    pairs = candidate_pairs(descriptors, NEIGHBOURS)
    values = pair_similarities(white, pairs)
    strangers = pair_similarities(white, _random_pairs(count))
    threshold = find_threshold(values, strangers) if count >= FEW else UNREAD
    groups = Groups(count, lambda a, b: similarities(white[a], white[b]), threshold.value)
    groups.merge(_at_least(threshold.value, pairs, values))
    # Halfway to the threshold: a mean over a group varies less than a single pair.
    groups.adopt(_at_least(threshold.floor, pairs, values), (threshold.floor + threshold.value) / 2)
    suspects = _merge_fragments(groups, white, descriptors, threshold)
    nearest, similarity = _nearest(count, pairs, values)
    confidence = _confidence(groups.labels, nearest, similarity, threshold)
    return Recovery(groups.labels, nearest, similarity, confidence, threshold, suspects)


def describe(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return descriptors of unit length [N, d]: the principal components of `values` [N, D].

    The components come from an evenly spread sample, so that the cost is linear in N.
    """
    from sklearn.utils.extmath import randomized_svd

    sample = values[np.unique(np.linspace(0, len(values) - 1, SAMPLE).astype(int))]
    mean = sample.mean(axis=0)
    _, _, axes = randomized_svd(sample - mean, min(DIMENSIONS, *sample.shape), random_state=0)
    short = (values - mean) @ axes.T.astype(np.float32)
    norms = np.linalg.norm(short, axis=1, keepdims=True)
    return np.ascontiguousarray(short / np.maximum(norms, 1e-9), dtype=np.float32)


def candidate_pairs(descriptors: npt.NDArray[np.float32], neighbours: int) -> npt.NDArray[np.int64]:
    """Return the pairs [P, 2], first below second, of each image with its nearest neighbours."""
    import faiss

    count, dimensions = descriptors.shape
    index: Any = faiss.IndexFlatIP(dimensions)
    if count > EXACT_BELOW:
        cells = min(int(4 * np.sqrt(count)), count // 40)
        index = faiss.IndexIVFFlat(index, dimensions, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = 64
        index.train(descriptors)
        index.nprobe = 16
    index.add(descriptors)
    _, found = index.search(descriptors, min(neighbours + 1, count))
    left = np.repeat(np.arange(count), found.shape[1])
    pairs = np.stack([left, found.ravel()], axis=1)
    pairs = pairs[(pairs[:, 1] >= 0) & (pairs[:, 0] != pairs[:, 1])]
    return np.unique(np.sort(pairs, axis=1), axis=0).astype(np.int64)


def find_threshold(
    candidates: npt.NDArray[np.float32], strangers: npt.NDArray[np.float32]
) -> Threshold:
    """Return the limit between siblings and strangers.

    `candidates` are similarities of near neighbours: siblings where there are any, and the most
    similar strangers; `strangers` those of random pairs, nearly all of different castings. The
    limit is the emptiest place of the candidates' distribution between its two parts (Otsu), never
    within six deviations of the random pairs, which one in a billion strangers would reach. Where
    random pairs are siblings themselves it is `TYPICAL`.
    """
    middle = float(np.median(strangers))
    if middle >= TYPICAL:
        return UNREAD
    deviation = 1.4826 * float(np.median(np.abs(strangers - middle)))
    floor = middle + 6 * deviation
    above = candidates[candidates >= floor]
    if len(above) == 0:
        return Threshold(floor, (float(candidates.max()), 1.0), floor, clear=False)
    valley = _valley(candidates, floor, float(np.median(above)))
    low, high = candidates[candidates < valley], candidates[candidates >= valley]
    gap = (float(np.quantile(low, 0.999)) if len(low) else middle, float(np.quantile(high, 0.001)))
    return Threshold(valley, gap, floor, clear=gap[0] < gap[1])


def _valley(values: npt.NDArray[np.float32], lowest: float, highest: float) -> float:
    """Return where the fewest values lie between two limits, smoothed over a twentieth."""
    grid = np.linspace(lowest, highest, 201)
    width = max(0.02, (highest - lowest) / 20)
    ordered = np.sort(values)
    counts = np.searchsorted(ordered, grid + width) - np.searchsorted(ordered, grid - width)
    emptiest = np.flatnonzero(counts == counts.min())
    return float(grid[emptiest].mean())


def _random_pairs(count: int) -> npt.NDArray[np.int64]:
    pairs = np.random.default_rng(0).integers(0, count, (20_000, 2))
    return np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)


def _at_least(
    least: float, pairs: npt.NDArray[np.int64], values: npt.NDArray[np.float32]
) -> list[tuple[int, int]]:
    """Return the pairs that are at least so similar, the most similar first."""
    order = np.argsort(-values, kind="stable")
    return [
        (int(pairs[place, 0]), int(pairs[place, 1])) for place in order if values[place] >= least
    ]


def _merge_fragments(
    groups: Groups, white: Spectra, descriptors: npt.NDArray[np.float32], threshold: Threshold
) -> list[Suspect]:
    """Join groups whose members were not among each other's nearest neighbours.

    Returns the pairs of groups that stay apart and are more alike than strangers.
    """
    for _ in range(5):
        chosen = groups.representatives()
        pairs = chosen[candidate_pairs(descriptors[chosen], 2 * NEIGHBOURS)]
        labels = groups.labels
        pairs = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
        values = pair_similarities(white, pairs)
        if not groups.merge(_at_least(threshold.value, pairs, values)):
            break
    return _suspects(groups, pairs, values, threshold)


def _suspects(
    groups: Groups,
    pairs: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    threshold: Threshold,
) -> list[Suspect]:
    best: dict[tuple[int, int], Suspect] = {}
    labels = groups.labels
    for place in np.argsort(-values, kind="stable"):
        if values[place] < threshold.floor:
            break
        left, right = (int(item) for item in pairs[place])
        key = (int(labels[left]), int(labels[right]))
        best.setdefault((min(key), max(key)), Suspect(left, right, float(values[place])))
    return [each for key, each in best.items() if groups.support(*key) >= threshold.floor]


def _nearest(
    count: int, pairs: npt.NDArray[np.int64], values: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    nearest = np.full(count, -1, dtype=np.int64)
    similarity = np.zeros(count, dtype=np.float32)
    for place in np.argsort(values, kind="stable"):
        left, right = pairs[place]
        nearest[left], nearest[right] = right, left
        similarity[left] = similarity[right] = values[place]
    return nearest, np.maximum(similarity, 0)


def _confidence(
    group: npt.NDArray[np.int64],
    nearest: npt.NDArray[np.int64],
    similarity: npt.NDArray[np.float32],
    threshold: Threshold,
) -> npt.NDArray[np.float32]:
    """Return where the similarity lies in the gap: 1 at its safe end, 0 at the other."""
    low, high = threshold.gap
    width = max(abs(high - low), 0.05)
    beyond = np.clip(0.5 + (similarity - threshold.value) / width, 0, 1)
    sibling = (nearest >= 0) & (group == group[nearest])
    return np.asarray(np.where(sibling, beyond, 1 - beyond), dtype=np.float32)
