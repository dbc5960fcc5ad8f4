"""Two photographs of one casting, brought onto each other."""

from __future__ import annotations

import numpy as np
import pytest
from castings_pictures import photographs, plate, pose, posed

from zdm_ml.data.fingerprints import face, mean_power, spectra, whiten
from zdm_ml.data.frames import Frame
from zdm_ml.data.images import Grey
from zdm_ml.data.looks import RIM, SIDE, Looks, learn_looks


@pytest.fixture(scope="module")
def looks() -> Looks:
    return learn_looks([view for views in photographs(6, 4) for view in views])


def likeness(first: Grey, second: Grey) -> float:
    """Correlation of two straightened faces as they lie, without any further turn."""
    frame = Frame(np.full(2, (SIDE - 1) / 2), RIM * np.eye(2), 1.0)
    raw = spectra(np.stack([face(first, frame), face(second, frame)]))
    left, right = whiten(raw, mean_power(raw))
    return float(np.vdot(left, right).real)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [0.0, 0.4, 2.9, 5.0])
def test_a_picture_is_brought_onto_its_own_copy(looks: Looks, turn: float, mirrored: bool) -> None:
    image = photographs(6, 4)[1][2]

    left, right, found = looks.aligned_pair(
        image, posed(image, pose(turn=turn, mirrored=mirrored, shear=0.1, zoom=1.1))
    )

    assert left.shape == right.shape == (SIDE, SIDE)
    assert found.mirrored is mirrored
    assert likeness(left, right) > 0.9


@pytest.mark.parametrize("part", range(6))
def test_two_photographs_of_a_casting_lie_on_each_other(looks: Looks, part: int) -> None:
    views = photographs(6, 4)[part]

    left, right, found = looks.aligned_pair(views[0], views[3])
    _, stranger, _ = looks.aligned_pair(views[0], photographs(6, 4)[part - 1][3])

    assert likeness(left, right) > max(0.4, 0.9 * found.similarity)
    assert likeness(left, stranger) < 0.2


def test_each_image_says_which_way_it_was_found(looks: Looks) -> None:
    assert looks.see(photographs(6, 4)[0][0]).way == "ring"
    assert looks.see(plate(2)).way == "outline"


def test_without_common_rings_every_image_is_found_by_its_outline() -> None:
    blind = learn_looks([plate(seed) for seed in range(6)])

    assert blind.template is None
    assert blind.see(photographs(6, 4)[0][0]).way == "outline"
