"""The frame of a round part follows the part through every pose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from castings_pictures import SIZE, affine, photographs, plate, pose, posed

from zdm_ml.data.defects import Layer
from zdm_ml.data.frames import Frame, outline_frame
from zdm_ml.data.geometry import RIM
from zdm_ml.data.images import Grey
from zdm_ml.data.rendering import make_part, photograph
from zdm_ml.data.ring import Template, find_frame, learn_template


@pytest.fixture(scope="module")
def template() -> Template:
    found = learn_template([view for views in photographs(6, 4) for view in views])
    assert found is not None
    return found


def framed(image: Grey, template: Template) -> Frame:
    frame = find_frame(image, template)
    assert frame is not None
    return frame


def radius(frame: Frame) -> float:
    """The rim's mean radius in pixels."""
    return float(np.sqrt(abs(np.linalg.det(frame.matrix))))


@pytest.mark.parametrize(
    ("changes", "shift"),
    [
        ({"turn": 1.1}, (0, 0)),
        ({"mirrored": True, "turn": -2.0}, (0, 0)),
        ({"zoom": 0.85}, (0, 0)),
        ({"zoom": 1.15}, (0, 0)),
        ({"shear": 0.15}, (0, 0)),
        ({"shear": -0.15, "zoom": 0.9}, (0, 0)),
        ({}, (11.4, -7.7)),
        ({"turn": 2.5, "shear": 0.1, "zoom": 1.1, "mirrored": True}, (-6, 9)),
    ],
)
def test_the_frame_moves_with_the_part(
    template: Template, changes: dict[str, float], shift: tuple[float, float]
) -> None:
    image, matrix = photographs(6, 4)[2][1], pose(**changes)  # type: ignore[arg-type]  # by name

    before = framed(image, template)
    after = framed(posed(image, matrix, shift), template)

    centre = affine(image, matrix, shift) @ [*before.centre, 1]
    ellipse = matrix @ before.matrix @ before.matrix.T @ matrix.T
    assert np.abs(after.centre - centre).max() < 0.7
    assert (
        np.abs(
            after.matrix @ after.matrix.T / radius(after) ** 2 - ellipse / radius(after) ** 2
        ).max()
        < 0.03
    )


def test_the_rim_is_at_the_same_share_of_every_castings_radius(template: Template) -> None:
    shares = []
    for seed in range(6):
        rng = np.random.default_rng([17, seed])
        part = make_part(rng, SIZE, defective=False)
        nothing = np.zeros_like(part.grid.radius)
        silhouette = Layer(nothing, nothing, part.grid.radius <= RIM)

        photo = photograph(replace(part, defects=(silhouette,)), rng)

        area = np.count_nonzero(photo.mask)
        shares.append(radius(framed(photo.image, template)) / np.sqrt(area / np.pi))
    assert max(shares) / min(shares) < 1.02
    assert np.mean(shares) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(("contrast", "brightness"), [(0.75, -25), (1.25, 25), (0.75, 40)])
def test_light_does_not_move_the_frame(
    template: Template, contrast: float, brightness: float
) -> None:
    image = photographs(6, 4)[3][0]
    levels = (image.astype(np.float64) - image.mean()) * contrast + image.mean() + brightness
    lit = np.clip(levels, 0, 255).astype(np.uint8)

    before, after = framed(image, template), framed(lit, template)

    assert np.abs(before.centre - after.centre).max() < 0.7
    assert radius(after) == pytest.approx(radius(before), rel=0.015)


def test_every_photograph_fits_the_common_rings_well(template: Template) -> None:
    fits = [framed(view, template).fit for views in photographs(6, 4) for view in views]

    assert min(fits) > 0.85


@pytest.mark.parametrize(
    "picture",
    [
        plate(1),
        np.full((SIZE, SIZE), 128, np.uint8),
        np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), dtype=np.uint8),
    ],
    ids=["bar", "nothing", "noise"],
)
def test_a_picture_without_rings_has_no_ring_frame(template: Template, picture: Grey) -> None:
    assert find_frame(picture, template) is None


def test_pictures_without_rings_teach_no_template() -> None:
    assert learn_template([plate(seed) for seed in range(8)]) is None
    assert learn_template([]) is None


def test_an_outline_follows_shear_and_shift() -> None:
    image, matrix, shift = plate(4), pose(turn=0.7, shear=0.15, zoom=0.9), (5.0, -8.0)

    before, after = outline_frame(image), outline_frame(posed(image, matrix, shift))

    centre = affine(image, matrix, shift) @ [*before.centre, 1]
    ellipse = matrix @ before.matrix @ before.matrix.T @ matrix.T
    assert np.abs(after.centre - centre).max() < 1.0
    assert np.abs(after.matrix @ after.matrix.T - ellipse).max() < 0.05 * np.abs(ellipse).max()


def test_an_empty_picture_is_framed_as_a_whole() -> None:
    frame = outline_frame(np.full((120, 160), 90, np.uint8))

    assert frame.centre.tolist() == [79.5, 59.5]
    assert np.array_equal(frame.matrix, np.eye(2) * 59.5)
