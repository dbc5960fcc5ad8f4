"""Shortcut probes: how well light and background alone tell defective castings from good ones.

A probe that works has found a shortcut: a net can then score well without looking at the casting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import numpy.typing as npt

from zdm_ml.data.images import Grey

Floats = npt.NDArray[np.float64]
Strings = npt.NDArray[np.str_]

SIDE = 75
"""Side in pixels of the picture on which part and background are told apart."""

MARGIN = 0.05
"""Width of the rim around the part, as a share of the side, that is no background either."""

FEATURES = (
    *("mean", "contrast"),
    *("background_mean", "background_std", "p05", "p25", "p50", "p75", "p95"),
    *("slope_x", "slope_y", "slope", "roughness"),
)
"""Names of a picture's features: two of the whole picture, the others of its background alone.

All are in grey levels; slopes are the rise of a fitted plane over the picture's side.
"""

TABLE_PERCENTILE = 15
EDGE_OVER_TABLE = 4.0
FAINTEST_EDGE = 6.0
"""Grey levels over three pixels; an edge also exceeds the table's own gradient so many times."""

FIRST_OF_BACKGROUND = FEATURES.index("background_mean")
PERCENTILES = (5, 25, 50, 75, 95)
FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """AUC per image and per casting (None: not measurable), in [0.5, 1].

    `defects_are` states the direction, `chance` what a harmless feature exceeds in one set of
    this many castings out of forty, `method` how it was measured.
    """

    auc: float | None
    auc_per_part: float | None
    chance: float | None
    defects_are: str
    method: str


def background_features(grey: Grey) -> npt.NDArray[np.float32]:
    """Return the `FEATURES` of a picture, float32 [13], for uint8 [H, W] of any size.

    A picture without background (the part fills it) has the features of its border.
    """
    small: Grey = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)
    background = ~part_mask(small)
    if background.sum() < SIDE:
        background = _border()
    rows, columns = np.nonzero(background)
    levels = small[rows, columns].astype(np.float32)
    slope_x, slope_y = _slopes(rows, columns, levels)
    steps = cv2.Laplacian(small, cv2.CV_32F)[rows, columns]
    return np.array(
        [
            *(small.mean(), small.std(), levels.mean(), levels.std()),
            *np.sort(levels)[len(levels) * np.array(PERCENTILES) // 100],
            *(slope_x, slope_y, np.hypot(slope_x, slope_y), np.abs(steps).mean()),
        ],
        dtype=np.float32,
    )


def part_mask(small: Grey) -> npt.NDArray[np.bool_]:
    """Return where the part may be, bool [SIDE, SIDE]: the hull of its edges, widened.

    The table is smooth and the part is full of edges: the component with the strongest ones (by
    Otsu's threshold, 1979) is the part, and so are long ones that end inside the picture and very
    large ones, such as a faint outer rim. The hull takes in burrs, the margin the shadow.
    """
    smooth = cv2.GaussianBlur(small, (3, 3), 0)
    gradient = cv2.morphologyEx(smooth, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    strong, _ = cv2.threshold(gradient, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    table = float(np.sort(gradient, axis=None)[gradient.size * TABLE_PERCENTILE // 100])
    level = max(FAINTEST_EDGE, min(strong, EDGE_OVER_TABLE * table))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats((gradient > level).astype(np.uint8))
    left, top, width, height = boxes[:, :4].T
    inside = (left > 0) & (top > 0) & (left + width < SIDE) & (top + height < SIDE)
    long = np.maximum(width, height) >= SIDE // 8
    large = np.minimum(width, height) >= SIDE // 2
    of_part = (inside & long) | large
    of_part[np.bincount(labels[gradient > strong], minlength=len(boxes)).argmax()] = True
    of_part[0] = False
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    if of_part.any():
        points = cv2.findNonZero(of_part.astype(np.uint8)[labels])
        cv2.fillConvexPoly(mask, cv2.convexHull(points), 255)
    reach = 2 * round(MARGIN * SIDE) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    widened: npt.NDArray[np.bool_] = cv2.dilate(mask, disc) > 0
    return widened


def probe_feature(
    levels: Floats, target: npt.NDArray[np.int64], parts: Sequence[str], name: tuple[str, str]
) -> Probe:
    """Probe one number per image, float [N], against `target` (1: defect), int [N].

    `name` says what low and high values are, such as ("darker", "brighter").
    """
    image_auc = auc(levels, target)
    part_levels, part_target = per_part(levels, target, parts)
    part_auc = auc(part_levels, part_target)
    direction = next((value for value in (part_auc, image_auc) if value is not None), 0.5)
    return Probe(
        auc=_either_way(image_auc),
        auc_per_part=_either_way(part_auc),
        chance=_chance(part_target),
        defects_are=name[0] if direction < 0.5 else name[1],
        method="the number itself",
    )


def probe_background(
    features: Floats, target: npt.NDArray[np.int64], parts: Sequence[str]
) -> Probe:
    """Probe the background with a logistic regression on its features, float [N, K].

    Cross-validated by casting, each casting and each class weighing the same, on standardised
    features; a score below 0.5 is no better than guessing and is given as 0.5. With fewer than
    four castings in a class: the mean level of the background alone.
    """
    _, part_target = per_part(features[:, 0], target, parts)
    smallest = min(np.bincount(part_target, minlength=2))
    if smallest < 4:
        plain = probe_feature(features[:, 0], target, parts, ("darker there", "brighter there"))
        return Probe(**{**asdict(plain), "method": "mean level (too few castings for more)"})
    scores = _cross_validated(features, target, parts, min(FOLDS, int(smallest)))
    part_scores, part_target = per_part(scores, target, parts)
    return Probe(
        auc=_at_least_half(auc(scores, target)),
        auc_per_part=_at_least_half(auc(part_scores, part_target)),
        chance=_chance(part_target),
        defects_are="told by a regression",
        method=f"logistic regression, {min(FOLDS, int(smallest))} folds by casting",
    )


def per_part(
    values: Floats, target: npt.NDArray[np.int64], parts: Sequence[str]
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return the mean value of each casting with one label, float [P], and the labels, int [P]."""
    _, index = np.unique(np.asarray(parts), return_inverse=True)
    sizes = np.bincount(index)
    defects = np.bincount(index, weights=target)
    means = np.bincount(index, weights=values) / sizes
    pure = (defects == 0) | (defects == sizes)
    return means[pure], (defects[pure] > 0).astype(np.int64)


def auc(values: Floats, target: npt.NDArray[np.int64]) -> float | None:
    """Return the chance that a defect's value exceeds a good one's; ties count one half.

    The Mann-Whitney statistic over the number of pairs (Hanley and McNeil 1982); None with one
    class only.
    """
    from scipy.stats import rankdata

    defects, good = int(target.sum()), int((1 - target).sum())
    if not defects or not good:
        return None
    ranks = rankdata(values)[target == 1].sum()
    return float((ranks - defects * (defects + 1) / 2) / (defects * good))


def _cross_validated(
    features: Floats, target: npt.NDArray[np.int64], parts: Sequence[str], folds: int
) -> Floats:
    """Return each image's score by a model that has not seen its casting."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _, index = np.unique(np.asarray(parts), return_inverse=True)
    part_target = np.round(np.bincount(index, weights=target) / np.bincount(index)).astype(int)
    fold_of_part = np.empty(len(part_target), dtype=np.int64)
    for label in (0, 1):
        same = np.flatnonzero(part_target == label)
        fold_of_part[same] = np.arange(len(same)) % folds
    fold = fold_of_part[index]
    weight = 1.0 / (np.bincount(index)[index] * np.bincount(part_target)[part_target[index]])
    scores = np.zeros(len(target))
    for number in range(folds):
        train, held = fold != number, fold == number
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        # The mean weight is 1, as C = 1 presumes.
        weights = weight[train] / weight[train].mean()
        model.fit(features[train], target[train], logisticregression__sample_weight=weights)
        scores[held] = model.decision_function(features[held])
    return scores


def _chance(target: npt.NDArray[np.int64]) -> float | None:
    """Return 0.5 plus 1.96 standard errors of an AUC that measures nothing."""
    defects, good = int(target.sum()), int((1 - target).sum())
    if not defects or not good:
        return None
    error = np.sqrt((defects + good + 1) / (12 * defects * good))
    return round(min(1.0, 0.5 + 1.96 * float(error)), 4)


def _either_way(value: float | None) -> float | None:
    return None if value is None else round(max(value, 1 - value), 4)


def _at_least_half(value: float | None) -> float | None:
    return None if value is None else round(max(value, 0.5), 4)


def _slopes(
    rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], levels: npt.NDArray[np.float32]
) -> tuple[float, float]:
    """Return the rise over the side, right and down, of the plane fitted to the levels."""
    x, y = columns / SIDE, rows / SIDE
    x, y = x - x.mean(), y - y.mean()
    xx, xy, yy = float(x @ x), float(x @ y), float(y @ y)
    determinant = xx * yy - xy * xy
    if determinant < 1e-9:
        return 0.0, 0.0
    xl, yl = float(x @ levels), float(y @ levels)
    return (yy * xl - xy * yl) / determinant, (xx * yl - xy * xl) / determinant


def _border() -> npt.NDArray[np.bool_]:
    border = np.ones((SIDE, SIDE), dtype=bool)
    border[2:-2, 2:-2] = False
    return border
