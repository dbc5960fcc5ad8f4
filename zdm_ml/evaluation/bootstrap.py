"""How far figures may lie from the truth: bootstrap over castings, all images of one together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zdm_ml.evaluation.castings import Castings, Counts, Floats, group
from zdm_ml.evaluation.metrics import Targets

Wrong = npt.NDArray[np.bool_]


def cluster_bootstrap(
    wrong: Wrong,
    targets: Targets,
    parts: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Return percentile intervals for each model from castings drawn again with replacement.

    `wrong` [M, N] tells which of N images each of M models judges wrong. Castings are drawn by
    class, so that every resample has as many defective and good ones as the sample, and with them
    come all their images (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8). All models
    see the same resamples, and so does a later call with the same castings and seed.

    `per_image` holds the rates of images, a quotient of two sums where castings differ in size;
    `per_casting` gives each casting the weight one: the mean share of its images judged wrong.
    A rate without a single error has an interval of no width: use `by_casting` for a bound.
    """
    castings = group(targets, parts)
    weights = resampled_weights(castings, resamples, seed)
    estimates = _rates(castings, wrong, targets, np.ones((1, len(castings.parts))))
    drawn = _rates(castings, wrong, targets, weights)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    found: list[dict[str, Any]] = [
        {"resamples": resamples, "confidence": confidence} for _ in range(len(wrong))
    ]
    for weighting, rates in drawn.items():
        for name, values in rates.items():
            bounds = np.quantile(values, tails, axis=0) if values.size else None
            for model, result in enumerate(found):
                section = result.setdefault(weighting, {})
                section[name] = _at(estimates[weighting][name], 0, model)
                section[f"{name}_low"] = _at(bounds, 0, model)
                section[f"{name}_high"] = _at(bounds, 1, model)
    return found


def resampled_weights(castings: Castings, resamples: int, seed: int) -> Floats:
    """Return how often each casting was drawn, float64 [resamples, P], stratified by class."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(castings.parts)))
    for stratum in (castings.defective, ~castings.defective):
        members = np.flatnonzero(stratum)
        if not len(members):
            continue
        drawn = rng.integers(0, len(members), (resamples, len(members)))
        row = np.arange(resamples)[:, None] * len(members)
        counts = np.bincount((row + drawn).ravel(), minlength=resamples * len(members))
        weights[:, members] = counts.reshape(resamples, len(members))
    return weights


def _rates(
    castings: Castings, wrong: Wrong, targets: Targets, weights: Floats
) -> Mapping[str, dict[str, Floats]]:
    """Return each rate, [R, M], under each of R sets of weights; empty without a case."""
    escapes, overkills = (castings.sums(wrong & (targets == cls)) for cls in (1, 0))
    shares = (escapes + overkills) / castings.images
    defective = castings.defective
    # Of images: sums of counts. Of castings: sums of shares over how many castings were drawn.
    return {
        "per_image": _four_rates(weights, escapes, castings.defects, overkills, castings.good),
        "per_casting": _four_rates(
            weights,
            np.where(defective, shares, 0.0),
            defective.astype(np.int64),
            np.where(defective, 0.0, shares),
            (~defective).astype(np.int64),
        ),
    }


def _four_rates(
    weights: Floats,
    escapes: Floats,
    defects: Counts,
    overkills: Floats,
    good: Counts,
) -> dict[str, Floats]:
    missed, rejected = weights @ escapes.T, weights @ overkills.T
    of_defects, of_good = (weights @ defects)[:, None], (weights @ good)[:, None]
    nothing = np.empty((0, len(escapes)))
    escape_rate = missed / of_defects if defects.any() else nothing
    return {
        "escape_rate": escape_rate,
        "overkill_rate": rejected / of_good if good.any() else nothing,
        "accuracy": 1 - (missed + rejected) / (of_defects + of_good),
        "recall": 1 - escape_rate,
    }


def _at(values: Floats | None, row: int, model: int) -> float | None:
    # Rounded far below any difference that matters: last digits vary from machine to machine.
    return round(float(values[row, model]), 9) if values is not None and len(values) else None
