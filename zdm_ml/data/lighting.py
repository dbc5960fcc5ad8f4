"""Lighting clusters: images taken under the same light, found by their grey levels alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zdm_ml.data.probes import FEATURES

SEED = 20
MOST_CLUSTERS = 6
SAMPLE = 2000
"""Images on which the clusters are found; the others join the nearest one."""

WEAK = 0.25
"""Below this silhouette there is no substantial structure (Kaufman and Rousseeuw 1990)."""

USED = tuple(FEATURES.index(name) for name in ("mean", "contrast", "p50", "slope"))
"""All in grey levels, hence comparable without scaling; the direction of the slope is left out, as
it turns with a picture that was turned."""

Floats = npt.NDArray[np.float64]


def lighting_clusters(features: npt.NDArray[np.float32]) -> list[str]:
    """Return the cluster of each image, `L1` the darkest, for `FEATURES` float32 [N, K].

    k-means with one to six clusters, as many as give the best silhouette (Rousseeuw 1987); seeded,
    so that the same images give the same clusters.
    """
    if not len(features):
        return []
    points = features[:, USED].astype(np.float64)
    centres = _centres(points)
    centres = centres[np.argsort(centres[:, 0])]
    distances = ((points[:, None, :] - centres[None]) ** 2).sum(axis=2)
    return [f"L{number + 1}" for number in distances.argmin(axis=1)]


def _centres(points: Floats) -> Floats:
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    rng = np.random.default_rng(SEED)
    chosen = rng.permutation(len(points))[:SAMPLE]
    sample = points[np.sort(chosen)]
    best: Floats = sample.mean(axis=0, keepdims=True)
    quality = WEAK
    distinct = len(np.unique(sample, axis=0))
    for count in range(2, min(MOST_CLUSTERS, distinct - 1) + 1):
        found = KMeans(count, n_init=4, random_state=SEED).fit(sample)
        score = float(silhouette_score(sample, found.labels_))
        if score > quality:
            best, quality = found.cluster_centers_, score
    return best
