from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from recipes import PLAIN
from torch import nn

from zdm_ml.training.sides import Side, make_side
from zdm_ml.training.state import signature
from zdm_ml.training.steps import Classifier

CLASSIFIER = Classifier(
    "tiny", nn.Linear(2, 2), torch.device("cpu"), "fp32", PLAIN.input_size, 0.5, 0.25, False
)
SIDE = make_side(np.zeros((6, 4, 4), np.uint8), np.arange(6) % 2).part(np.arange(4))


def test_equal_sides_have_equal_signatures() -> None:
    again = make_side(np.zeros((6, 4, 4), np.uint8), np.arange(6) % 2).part(np.arange(4))

    assert signature(CLASSIFIER, PLAIN, 5, SIDE, 2) == signature(CLASSIFIER, PLAIN, 5, again, 2)


@pytest.mark.parametrize(
    "other",
    [
        replace(SIDE, places=np.array([0, 1, 2, 4])),
        replace(SIDE, targets=SIDE.targets[::-1].copy()),
        replace(SIDE, castings=np.array([0, 1, 2, 2])),
    ],
    ids=["images", "targets", "castings"],
)
def test_another_side_of_as_many_images_has_another_signature(other: Side) -> None:
    assert signature(CLASSIFIER, PLAIN, 5, SIDE, 2) != signature(CLASSIFIER, PLAIN, 5, other, 2)
