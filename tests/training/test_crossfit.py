from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from zdm_ml.training.crossfit import cross_fit
from zdm_ml.training.loop import EpochRecord
from zdm_ml.training.sides import Side, make_side


@dataclass
class Calls:
    """What each net was trained on and judged by."""

    learnt: list[set[int]]
    held_out: list[set[int]]


class Constant(nn.Module):
    """Answers with one logit for every image."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros_like(self.logit), self.logit]).repeat(len(images), 1)


def score(net: nn.Module, held: Side) -> np.ndarray:
    return np.full(len(held), float(net.logit.detach().sigmoid()))


def side() -> Side:
    """Six castings of two images, alternately good and defective."""
    castings = np.repeat(np.arange(6), 2)
    return make_side(np.zeros((12, 16, 16), np.uint8), (castings % 2).astype(np.int64), castings)


def test_each_casting_is_scored_by_the_net_that_did_not_learn_from_it() -> None:
    learn, groups = side(), np.repeat([0, 0, 1, 1, 2, 2], 2)
    calls = Calls([], [])

    def fit(number: int, rest: Side, held: Side) -> tuple[nn.Module, list[EpochRecord]]:
        calls.learnt.append(set(rest.castings.tolist()))
        calls.held_out.append(set(held.castings.tolist()))
        return Constant(float(number)), [EpochRecord(1, 0.0, float(number), 0.5, 0.0, 0.0, 0.0)]

    found = cross_fit(learn, groups, fit, score)

    assert calls.held_out == [{0, 1}, {2, 3}, {4, 5}]
    assert all(not a & b and len(a | b) == 6 for a, b in zip(*vars(calls).values(), strict=True))
    expected = 1 / (1 + np.exp(-np.repeat([0.0, 1.0, 2.0], 4)))
    assert np.allclose(found.scores, expected, atol=1e-6)


def test_the_curve_is_the_mean_over_the_nets() -> None:
    def fit(number: int, rest: Side, held: Side) -> tuple[nn.Module, list[EpochRecord]]:
        history = [EpochRecord(e, 0.0, number + e, 0.25 * number, 0.0, 0.0, 0.0) for e in (1, 2)]
        return Constant(0.0), history

    found = cross_fit(side(), np.repeat([0, 1], 6), fit, score)

    assert found.curve.losses == [1.5, 2.5]
    assert found.curve.accuracies == [0.125, 0.125]
