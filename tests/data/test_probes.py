"""Shortcut probes and lighting clusters, on pictures whose light is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from zdm_ml.data.images import Grey
from zdm_ml.data.lighting import lighting_clusters
from zdm_ml.data.probes import (
    FEATURES,
    FIRST_OF_BACKGROUND,
    SIDE,
    auc,
    background_features,
    part_mask,
    probe_background,
    probe_feature,
)
from zdm_ml.data.rendering import make_part, photograph


def _picture(seed: int, *, defective: bool = False) -> Grey:
    rng = np.random.default_rng(seed)
    return photograph(make_part(rng, 300, defective=defective), rng).image


def _disc(background: int, part: int = 200, slope: float = 0.0) -> Grey:
    ramp = np.linspace(-slope / 2, slope / 2, 300)
    image = np.clip(background + np.tile(ramp, (300, 1)), 0, 255).astype(np.uint8)
    cv2.circle(image, (150, 150), 100, part, -1)
    return image


def _feature(image: Grey, name: str) -> float:
    return float(background_features(image)[FEATURES.index(name)])


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2))
def test_auc_is_that_of_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    values = np.array([value for value, _ in pairs], dtype=np.float64)
    target = np.array([int(defect) for _, defect in pairs], dtype=np.int64)

    found = auc(values, target)

    if len(set(target)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(roc_auc_score(target, values))


@pytest.mark.parametrize("seed", range(8))
def test_the_mask_covers_the_part_and_leaves_background(seed: int) -> None:
    small = cv2.resize(_picture(seed, defective=True), (SIDE, SIDE), interpolation=cv2.INTER_AREA)

    mask = part_mask(small)

    middle = slice(SIDE // 5, -SIDE // 5)
    assert mask[middle, middle].mean() > 0.99
    assert 0.05 < (~mask).mean() < 0.6


def test_the_background_features_see_nothing_of_the_part() -> None:
    bright, dark = (background_features(_disc(128, part)) for part in (220, 30))

    np.testing.assert_allclose(bright[FIRST_OF_BACKGROUND:], dark[FIRST_OF_BACKGROUND:], atol=0.01)


def test_a_burr_is_masked_out_with_the_part() -> None:
    plain, burred = _disc(128), _disc(128)
    cv2.line(burred, (230, 150), (265, 140), 0, 6)

    np.testing.assert_allclose(
        background_features(burred)[FIRST_OF_BACKGROUND:],
        background_features(plain)[FIRST_OF_BACKGROUND:],
        atol=0.01,
    )


def test_the_slope_is_the_rise_of_the_background_over_the_side() -> None:
    image = _disc(128, slope=40)

    assert _feature(image, "slope_x") == pytest.approx(40, abs=2)
    assert _feature(image, "slope_y") == pytest.approx(0, abs=1)
    assert _feature(np.rot90(image).copy(), "slope") == pytest.approx(40, abs=2)


@pytest.mark.parametrize("shape", [(300, 300), (37, 51), (8, 2000)])
def test_a_picture_without_a_part_still_has_features(shape: tuple[int, int]) -> None:
    features = background_features(np.full(shape, 77, dtype=np.uint8))

    assert np.isfinite(features).all()
    assert features[FEATURES.index("p50")] == 77


def _lit(
    shift: float, castings: int = 24, views: int = 4
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Backgrounds of castings whose defective ones are `shift` grey levels darker."""
    rng = np.random.default_rng(3)
    target = np.repeat(np.arange(castings) % 2, views)
    level = np.repeat(rng.normal(150, 4, castings), views) - shift * target
    noise = rng.normal(0, 1, (castings * views, 5))
    features = np.column_stack([level + noise[:, 0], noise[:, 1:]])
    return features, target, [f"part-{index // views}" for index in range(castings * views)]


def test_a_planted_brightness_shortcut_is_found_with_its_direction() -> None:
    features, target, parts = _lit(20)

    probe = probe_feature(features[:, 0], target, parts, ("darker", "brighter"))

    assert probe.auc is not None and probe.auc > 0.98
    assert probe.auc_per_part is not None and probe.auc_per_part > 0.98
    assert probe.defects_are == "darker"


def test_a_planted_background_shortcut_is_found_and_a_harmless_one_is_not() -> None:
    found, harmless = (probe_background(*_lit(shift)) for shift in (20, 0))

    assert found.auc_per_part is not None and found.auc_per_part > 0.98
    assert harmless.auc_per_part is not None and harmless.chance is not None
    assert harmless.auc_per_part <= harmless.chance


def test_the_background_probe_cannot_remember_castings() -> None:
    """Features that name the casting, and say nothing else, score no better than chance."""
    _, target, parts = _lit(0)
    names = np.random.default_rng(8).normal(size=(24, 40))
    features = names[[int(part.removeprefix("part-")) for part in parts]]

    probe = probe_background(features, target, parts)

    assert probe.auc is not None and probe.auc < 0.75


@pytest.mark.parametrize("castings", [2, 6])
def test_with_few_castings_the_mean_level_is_the_probe(castings: int) -> None:
    probe = probe_background(*_lit(20, castings=castings))

    assert "too few castings" in probe.method
    assert probe.auc == 1.0


def test_a_casting_with_both_labels_counts_for_neither_class() -> None:
    values, target = np.array([1.0, 2.0, 3.0, 9.0]), np.array([0, 1, 0, 1])

    probe = probe_feature(values, target, ["a", "b", "mixed", "mixed"], ("low", "high"))

    assert probe.auc_per_part == 1.0
    assert probe.defects_are == "high"


def test_without_a_pure_casting_of_a_class_nothing_is_measured_per_casting() -> None:
    probe = probe_feature(np.array([1.0, 2.0]), np.array([0, 1]), ["a", "a"], ("low", "high"))

    assert (probe.auc, probe.auc_per_part, probe.chance) == (1.0, None, None)


def test_two_lights_are_two_clusters_the_darker_first() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (200, len(FEATURES))).astype(np.float32)
    features[:, FEATURES.index("mean")] += np.where(np.arange(200) % 2, 160, 100)

    clusters = lighting_clusters(features)

    assert clusters == ["L2" if index % 2 else "L1" for index in range(200)]
    assert lighting_clusters(features) == clusters


@pytest.mark.parametrize("count", [1, 2, 40])
def test_one_light_is_one_cluster(count: int) -> None:
    features = np.full((count, len(FEATURES)), 120, dtype=np.float32)

    assert set(lighting_clusters(features)) == {"L1"}
