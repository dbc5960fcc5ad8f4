"""What tests train with: augmentations and a recipe to which each test adds what it is about."""

from __future__ import annotations

from dataclasses import replace

from zdm_ml.recipes import AugmentParams, Recipe

STILL = AugmentParams(
    interpolation="bilinear",
    horizontal_flip=0.0,
    vertical_flip=0.0,
    degrees=0.0,
    translate=0.0,
    scale=[1.0, 1.0],
    stretch=0.0,
    jitter=0.0,
    gamma=0.0,
    lighting=0.0,
    mix=0.0,
    paste=0.0,
)
"""Shows every picture as it is."""

MILD = replace(
    STILL,
    interpolation="nearest",
    horizontal_flip=0.5,
    vertical_flip=0.3,
    degrees=2.5,
    translate=0.05,
    scale=[0.95, 1.05],
    jitter=0.2,
)
"""The reference recipe's."""

STRONG = replace(
    MILD,
    vertical_flip=0.5,
    degrees=180.0,
    scale=[0.85, 1.15],
    stretch=0.08,
    gamma=0.25,
    lighting=0.15,
    mix=0.5,
    paste=0.25,
)
"""Everything at once, as in the modern recipe."""

PLAIN = Recipe(
    name="reference",
    input_size=16,
    batch_size=8,
    mean=0.5,
    std=0.25,
    standardise=False,
    sampling="images",
    images_per_epoch=None,
    optimizer="adam",
    schedule="exponential",
    label_smoothing=0.0,
    averaging=0.0,
    keep="best",
    crossfit=0,
    augment=MILD,
    learning_rate=3e-3,
    weight_decay=0.0,
    epochs=3,
    gamma=0.5,
)
"""The reference recipe for three quick epochs."""

RICH = replace(
    PLAIN,
    name="modern",
    standardise=True,
    sampling="castings",
    images_per_epoch=30,
    optimizer="adamw",
    schedule="one_cycle",
    label_smoothing=0.05,
    averaging=0.9,
    keep="last",
    augment=STRONG,
    weight_decay=1e-2,
)
"""The modern recipe for three quick epochs."""
