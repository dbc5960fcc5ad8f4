"""How models are trained: the recipes of params.yaml, and what they come to for one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from zdm_ml.errors import ConfigError

RecipeName = Literal["modern", "reference"]
Sampling = Literal["images", "castings"]
Optimizer = Literal["adam", "adamw"]
Schedule = Literal["exponential", "one_cycle"]
Keep = Literal["best", "last"]
Interpolation = Literal["nearest", "bilinear"]


@dataclass(frozen=True)
class AugmentParams:
    """Chances of flips, mixing and pasted defects; degrees; the rest: largest relative changes.

    `interpolation` says which pixels a moved one is read from; `scale` is [low, high]; `stretch`
    lengthens one axis and shortens the other; `lighting` is the deviation of a smooth field that
    the picture is multiplied by.
    """

    interpolation: Interpolation

    horizontal_flip: float
    vertical_flip: float
    degrees: float
    translate: float
    scale: list[float]
    stretch: float
    jitter: float
    gamma: float
    lighting: float
    mix: float
    paste: float


@dataclass(frozen=True)
class FitParams:
    """How fast and how long; `gamma` multiplies the rate per epoch of an exponential schedule."""

    learning_rate: float
    weight_decay: float
    epochs: int
    gamma: float


@dataclass(frozen=True)
class Method:
    """What a recipe says of every model.

    Under sampling `castings` an epoch is `images_per_epoch` draws, every casting of a class as
    likely as the next, half of them good after pasting; null means as many as there are images.
    `averaging` is the decay per step of an exponential moving average of the weights, 0 for none;
    `keep` says whether the best epoch by validation loss or the last one is the result. With
    `crossfit` of k the castings of val and calibration are trained on too, and the threshold comes
    from k further nets, each scoring the castings that it was not trained on; 0 for none.
    """

    batch_size: int
    mean: float
    std: float
    standardise: bool
    sampling: Sampling
    images_per_epoch: int | None
    optimizer: Optimizer
    schedule: Schedule
    label_smoothing: float
    averaging: float
    keep: Keep
    crossfit: int
    augment: AugmentParams


@dataclass(frozen=True)
class ModelOverrides:
    """What a model does otherwise under one recipe."""

    input_size: int | None = None
    crossfit: int | None = None
    finetune: dict[str, float] = field(default_factory=dict)
    scratch: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RecipeParams(Method):
    """A method, from pretrained weights (`finetune`) and from random ones (`scratch`)."""

    finetune: FitParams
    scratch: FitParams


@dataclass(frozen=True)
class Recipe(Method, FitParams):
    """All that decides how one model is trained."""

    name: RecipeName
    input_size: int


def resolve(
    name: RecipeName,
    recipe: RecipeParams,
    model: str,
    input_size: int,
    start: Literal["finetune", "scratch"],
    changes: Mapping[str, Any],
    overrides: ModelOverrides,
) -> Recipe:
    """Return a recipe for one model: its `changes`, then its `overrides` under this recipe.

    A key that no fit has, or a value that trains nothing, raises `ConfigError`.
    """
    changed = {**changes, **getattr(overrides, start)}
    where = f"models.{model}.{start} under recipe {name}"
    unknown = set(changed) - {item.name for item in fields(FitParams)}
    if unknown:
        raise ConfigError(f"params.yaml: {where}: unknown key {min(unknown)!r}")
    if "epochs" in changed and changed["epochs"] == int(changed["epochs"]):
        changed["epochs"] = int(changed["epochs"])
    fit = replace(getattr(recipe, start), **changed)
    if not isinstance(fit.epochs, int) or fit.epochs < 1 or fit.learning_rate <= 0:
        raise ConfigError(
            f"params.yaml: {where}: epochs {fit.epochs}, learning_rate {fit.learning_rate}",
            hint="epochs: a whole number of at least 1; learning_rate: above 0",
        )
    shared = {item.name: getattr(recipe, item.name) for item in fields(Method)}
    if overrides.crossfit is not None:
        shared["crossfit"] = overrides.crossfit
    crossfit = shared["crossfit"]
    if crossfit < 0 or crossfit == 1 or (crossfit and recipe.keep != "last"):
        raise ConfigError(
            f"params.yaml: crossfit {crossfit} of {model} under recipe {name}",
            hint="0, or at least 2 and then with keep last",
        )
    size = input_size if overrides.input_size is None else overrides.input_size
    return Recipe(name=name, input_size=size, **shared, **vars(fit))


def demands(recipe: RecipeParams) -> dict[str, bool]:
    """Return what must hold of a recipe as params.yaml writes it, by what to say if it does not."""
    augment = recipe.augment
    chances = (augment.horizontal_flip, augment.vertical_flip, augment.mix, augment.paste)
    changes = (augment.stretch, augment.jitter, augment.gamma, augment.lighting, augment.translate)
    return {
        "batch_size: at least 2": recipe.batch_size >= 2,
        "std: above 0": recipe.std > 0,
        "images_per_epoch: at least 2, or null": (
            recipe.images_per_epoch is None or recipe.images_per_epoch >= 2
        ),
        "label_smoothing: at least 0 and below 1": 0 <= recipe.label_smoothing < 1,
        "averaging: at least 0 and below 1": 0 <= recipe.averaging < 1,
        "augment.paste: below 0.5, or no real defect is left": augment.paste < 0.5,
        "augment: chances between 0 and 1": all(0 <= chance <= 1 for chance in chances),
        "augment: changes at least 0 and below 1": all(0 <= change < 1 for change in changes),
        "augment.scale: two numbers above 0, [low, high]": (
            len(augment.scale) == 2 and 0 < augment.scale[0] <= augment.scale[1]
        ),
        "finetune.epochs, scratch.epochs: at least 1": (
            min(recipe.finetune.epochs, recipe.scratch.epochs) >= 1
        ),
    }
