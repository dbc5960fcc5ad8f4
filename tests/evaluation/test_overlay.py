"""Pictures of heat maps for people."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from zdm_ml.evaluation.map_licence import MapLicence
from zdm_ml.evaluation.overlay import NARROWEST, WIDEST, Finding, overlay
from zdm_ml.evaluation.verdicts import Verdicts

HALF = Verdicts(0.5, 0.5)

LICENSED = MapLicence("licensed", "the heat maps point at the defect in 58 of 60 castings")
REFUSED = MapLicence("below_floor", "the heat maps point at the defect in 9 of 60 castings")


def picture(
    shape: tuple[int, int] = (480, 480), heat: float = 0.0, licence: MapLicence = LICENSED
) -> np.ndarray:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = overlay(image, np.full(shape, heat, np.float32), Finding("luna", 0.75, HALF), licence)
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))


def red(shown: np.ndarray) -> int:
    blue, green, red = np.moveaxis(shown.astype(int), 2, 0)
    return int(np.count_nonzero((red > 150) & (green < 80) & (blue < 80)))


def test_the_image_stays_grey_where_the_map_is_zero() -> None:
    shown = picture()[:480]

    assert np.array_equal(shown[:, :, 0], shown[:, :, 2])
    image = np.random.default_rng(0).integers(0, 256, (480, 480), dtype=np.uint8)
    assert np.array_equal(shown[:, :, 0], image)


def test_the_image_shows_through_where_the_map_is_one() -> None:
    shown = picture(heat=1.0)[:480].astype(int)

    assert not np.array_equal(shown[:, :, 0], shown[:, :, 2])
    assert np.ptp(shown, axis=(0, 1)).min() > 80


@pytest.mark.parametrize(
    ("shape", "width"), [((300, 300), NARROWEST), ((30, 900), 900), ((4000, 3000), WIDEST)]
)
def test_words_fit_below_images_of_any_size(shape: tuple[int, int], width: int) -> None:
    shown = picture(shape)

    assert shown.shape[1] == width
    assert shown.shape[0] >= round(shape[0] * width / shape[1]) + 40


def test_a_map_without_a_licence_is_marked_in_red() -> None:
    assert red(picture(licence=LICENSED)) == 0
    assert red(picture(licence=REFUSED)) > 100


@pytest.mark.parametrize(("score", "verdict"), [(0.5, "defect"), (0.49, "ok")])
def test_a_finding_is_a_defect_from_the_threshold_on(score: float, verdict: str) -> None:
    assert Finding("luna", score, HALF).verdict == verdict
