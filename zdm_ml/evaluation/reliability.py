"""Whether scores are probabilities: temperature, Brier score, calibration error, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from zdm_ml.evaluation.metrics import Scores, Targets, check
from zdm_ml.evaluation.thresholds import image_weights

Floats = npt.NDArray[np.float64]

BINS = 10
TEMPERATURES = (0.05, 20.0)
"""Classes that are told apart without an error would be best at a temperature of zero."""

_CLIP = 1e-12


def logits_of(scores: Scores) -> Floats:
    """Return log(p / (1 - p)) of scores in [0, 1], finite at both ends."""
    clipped = np.clip(scores, _CLIP, 1 - _CLIP)
    logits: Floats = np.log(clipped) - np.log1p(-clipped)
    return logits


def tempered(scores: Scores, temperature: float) -> Floats:
    """Return P(defect) of scores, their logits divided by `temperature`, both classes as likely."""
    from scipy.special import expit

    probabilities: Floats = expit(logits_of(scores) / temperature)
    return probabilities


def fit_temperature(scores: Scores, targets: Targets, parts: Sequence[str]) -> float:
    """Return the temperature with the lowest log loss (Guo et al., ICML 2017), in `TEMPERATURES`.

    Each casting weighs one, both classes half. With one class alone nothing can be fitted: 1.
    """
    from scipy.optimize import minimize_scalar

    check(scores, targets)
    if len(np.unique(targets)) < 2:
        return 1.0
    weights, logits = even_weights(targets, parts), logits_of(scores)
    signed = np.where(targets == 1, logits, -logits)

    def loss(log_temperature: float) -> float:
        return float(weights @ np.logaddexp(0, -signed / np.exp(log_temperature)))

    found = minimize_scalar(loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded")
    return round(float(np.exp(found.x)), 6)


def even_weights(targets: Targets, parts: Sequence[str]) -> Floats:
    """Return weights [N] that sum to 1: half to each class that is there, castings evenly."""
    weights = image_weights(targets, parts)
    present = [targets == cls for cls in (0, 1) if (targets == cls).any()]
    for members in present:
        weights[members] /= weights[members].sum() * len(present)
    return weights


def brier(probabilities: Floats, targets: Targets, weights: Floats) -> float:
    """Return the weighted mean squared distance from the truth; 0 is best, 0.25 says nothing."""
    return float(weights @ (probabilities - targets) ** 2)


def calibration_error(bins: Sequence[dict[str, Any]]) -> float:
    """Return the expected calibration error of `reliability`: the mean distance, by weight."""
    return float(sum(row["weight"] * abs(row["defective"] - row["predicted"]) for row in bins))


def reliability(probabilities: Floats, targets: Targets, weights: Floats) -> list[dict[str, Any]]:
    """Return one row per tenth of [0, 1] that holds images: what was predicted, what was true.

    `predicted` is the mean P(defect), `defective` the share of defects, both by `weights`, which
    sum to 1.
    """
    at = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    rows = []
    for number in np.unique(at):
        members = at == number
        weight = float(weights[members].sum())
        rows.append(
            {
                "bin": f"{number / BINS:.1f} to {(number + 1) / BINS:.1f}",
                "images": int(members.sum()),
                "weight": weight,
                "predicted": float(weights[members] @ probabilities[members]) / weight,
                "defective": float(weights[members] @ targets[members]) / weight,
            }
        )
    return rows


def reliability_figures(
    scores: Scores, targets: Targets, parts: Sequence[str], temperature: float
) -> dict[str, Any]:
    """Return Brier score and calibration error, as scored and at `temperature`, with the bins.

    Each casting weighs one and both classes half, as in `fit_temperature`.
    """
    weights = even_weights(targets, parts)
    figures: dict[str, Any] = {"temperature": temperature}
    for name, at in (("scored", 1.0), ("tempered", temperature)):
        probabilities = tempered(scores, at)
        bins = reliability(probabilities, targets, weights)
        figures[name] = {
            "brier": brier(probabilities, targets, weights),
            "calibration_error": calibration_error(bins),
        }
        figures["bins"] = bins
    return figures
