"""Cross-fitting: every casting scored by a net that never saw it, so that none is held back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from zdm_ml.training.loop import Curve, EpochRecord
from zdm_ml.training.sides import Indices, Side

Scores = npt.NDArray[np.float64]
Fit = Callable[[int, Side, Side], tuple[nn.Module, Sequence[EpochRecord]]]
"""Trains a net on one side beside another: the group's number, who learns, who is held out."""

Score = Callable[[nn.Module, Side], Scores]
"""Returns P(defect), float64 [N], of a side's images, looked at as the net in use looks at them."""


@dataclass(frozen=True)
class CrossFit:
    """P(defect) of each image of a side, [N], and the mean curve of the nets that gave them."""

    scores: Scores
    curve: Curve


def cross_fit(learn: Side, groups: Indices, fit: Fit, score: Score) -> CrossFit:
    """Train one net per group on the images of all others, and score the group with it.

    `groups` [N] numbers the images from 0 on; images of one casting share a group. What a
    threshold costs on these scores is what it costs on castings that no net has seen (Chernozhukov
    et al., Econometrics Journal 21, 2018, for the principle), though each of these nets learnt
    from fewer castings than the one that is kept.
    """
    scores = np.empty(len(learn))
    histories = []
    for number in range(int(groups.max()) + 1):
        held = np.flatnonzero(groups == number)
        rest, held_out = learn.part(np.flatnonzero(groups != number)), learn.part(held)
        net, history = fit(number, rest, held_out)
        scores[held] = score(net, held_out)
        histories.append(history)
    epochs = list(zip(*histories, strict=True))
    return CrossFit(
        scores,
        Curve(
            [float(np.mean([record.val_loss for record in epoch])) for epoch in epochs],
            [float(np.mean([record.val_accuracy for record in epoch])) for epoch in epochs],
        ),
    )
