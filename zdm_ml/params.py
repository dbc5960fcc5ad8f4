"""params.yaml as frozen dataclasses: an unknown, missing or ill-typed key is named."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from zdm_ml.errors import ConfigError

Transfer = Literal["full", "partial", "feature_extraction"]
Profile = Literal["full", "quick", "smoke"]
Protocol = Literal["grouped", "shipped", "kfold"]
RecipeName = Literal["modern", "reference"]
Precision = Literal["auto", "fp32", "bf16"]
Sampling = Literal["images", "castings"]
Optimizer = Literal["adam", "adamw"]
Schedule = Literal["exponential", "one_cycle"]
Keep = Literal["best", "last"]


@dataclass(frozen=True)
class AuditParams:
    """`part_pattern` is a regular expression whose first group in a file name is its part."""

    max_pixels: int
    part_pattern: str | None


@dataclass(frozen=True)
class SplitParams:
    """Shares of castings; `folds` and `fold` count only under protocol kfold.

    An open `lockbox` is the test side, and what would have been is trained on.
    """

    protocol: Protocol
    val: float
    calibration: float
    test: float
    remember: bool
    folds: int
    fold: int
    train_limit: int | None
    holdout_limit: int | None
    lockbox: Literal["closed", "open"]


@dataclass(frozen=True)
class AugmentParams:
    """Chances of flips and pasted defects; degrees; the rest are largest relative changes.

    `scale` is [low, high]; `stretch` lengthens one axis and shortens the other; `lighting` is the
    deviation of a smooth field that the picture is multiplied by.
    """

    horizontal_flip: float
    vertical_flip: float
    degrees: float
    translate: float
    scale: list[float]
    stretch: float
    jitter: float
    gamma: float
    lighting: float
    paste: float


@dataclass(frozen=True)
class FitParams:
    """How fast and how long; `gamma` multiplies the rate per epoch of an exponential schedule."""

    learning_rate: float
    weight_decay: float
    epochs: int
    gamma: float


@dataclass(frozen=True)
class RecipeParams:
    """How to train from pretrained weights (`finetune`) and from random ones (`scratch`).

    `models` overrides `input_size`, `crossfit`, `finetune` and `scratch` of single models.
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
    finetune: FitParams
    scratch: FitParams
    models: dict[str, ModelOverrides]


@dataclass(frozen=True)
class TrainParams:
    """`views`: augmented copies of each image that a frozen trunk looks at."""

    recipe: RecipeName
    weights: str
    device: str
    precision: Precision
    views: int


@dataclass(frozen=True)
class ModelParams:
    """`finetune` and `scratch` override single keys of the recipe's."""

    input_size: int
    transfer: Transfer
    finetune: dict[str, float]
    scratch: dict[str, float]


@dataclass(frozen=True)
class ModelOverrides:
    """What one recipe changes of one model's section."""

    input_size: int | None = None
    crossfit: int | None = None
    finetune: dict[str, float] = field(default_factory=dict)
    scratch: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """All that decides how one model is trained: a recipe with the model's own keys laid over it.

    Under sampling `castings` an epoch is `images_per_epoch` draws, half of each class, every
    casting of a class as likely as the next; null means as many as there are images. `averaging`
    is the decay per step of an exponential moving average of the weights, 0 for none; `keep` says
    whether the best epoch by validation loss or the last one is the result. With `crossfit` of k
    the castings of val and calibration are trained on too, and the threshold comes from k further
    nets, each scoring the castings that it was not trained on; 0 for none.
    """

    name: RecipeName
    input_size: int
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
    learning_rate: float
    weight_decay: float
    epochs: int
    gamma: float


@dataclass(frozen=True)
class CostParams:
    overkill_weight: float


@dataclass(frozen=True)
class EvaluateParams:
    """`perturbation_limit` images at most are scored under each perturbation; null: all of test."""

    batch_size: int
    confidence: float
    resamples: int
    perturbation_limit: int | None


@dataclass(frozen=True)
class LatencyParams:
    warmup: int
    repeats: int
    threads: int


@dataclass(frozen=True)
class SelectParams:
    min_models: int


@dataclass(frozen=True)
class PromoteParams:
    """`min_castings` (per class) and `floors` (balanced accuracy) hold by profile."""

    cost_tolerance: float
    min_castings: dict[str, int]
    floors: dict[str, float]


@dataclass(frozen=True)
class Params:
    profile: Profile
    seed: int
    audit: AuditParams
    split: SplitParams
    train: TrainParams
    recipes: dict[str, RecipeParams]
    models: dict[str, ModelParams]
    cost: CostParams
    evaluate: EvaluateParams
    latency: LatencyParams
    select: SelectParams
    promote: PromoteParams
    raw: dict[str, Any] = field(repr=False, compare=False)

    def model(self, name: str) -> ModelParams:
        """Return one model's section; a name that params.yaml lacks raises `ConfigError`."""
        if name not in self.models:
            raise ConfigError(
                f"params.yaml has no model {name!r}; it has {', '.join(self.models)}",
                hint="add it under `models:` or name another",
            )
        return self.models[name]

    def recipe(self, name: str, *, scratch: bool) -> Recipe:
        """Return the chosen recipe of a model, from random or from pretrained weights."""
        return self.named_recipe(self.train.recipe, name, scratch=scratch)

    def named_recipe(self, recipe: RecipeName, name: str, *, scratch: bool) -> Recipe:
        """Return one recipe of a model: recipe, then the model's keys, then the recipe's for it."""
        model, base = self.model(name), self.recipes[recipe]
        overrides = base.models.get(name, ModelOverrides())
        start = "scratch" if scratch else "finetune"
        changes: dict[str, Any] = {**getattr(model, start), **getattr(overrides, start)}
        unknown = set(changes) - {item.name for item in fields(FitParams)}
        if unknown:
            raise ConfigError(f"params.yaml: models.{name}.{start}: unknown key {min(unknown)!r}")
        if "epochs" in changes:
            changes["epochs"] = int(changes["epochs"])
        fit = replace(getattr(base, start), **changes)
        shared = {
            item.name: getattr(base, item.name)
            for item in fields(RecipeParams)
            if item.name not in ("finetune", "scratch", "models")
        }
        if overrides.crossfit is not None:
            shared["crossfit"] = overrides.crossfit
        return Recipe(
            name=recipe,
            input_size=overrides.input_size or model.input_size,
            **shared,
            **{item.name: getattr(fit, item.name) for item in fields(FitParams)},
        )


def load_params(path: Path, *, recipe: str | None = None) -> Params:
    """Read and check a params file; `recipe` takes the place of its `train.recipe`."""
    import yaml  # here, so that a GPU node without it can still use the dataclasses

    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing", hint="run from the project's root") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if recipe is not None and isinstance(raw, dict) and isinstance(raw.get("train"), dict):
        raw["train"]["recipe"] = recipe
    return parse_params(raw, str(path))


def parse_params(raw: Any, source: str) -> Params:
    """Check a mapping as read from YAML; `source` names it in errors."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a mapping of sections")
    params = cast(Params, _build(Params, {**raw, "raw": raw}, source, ""))
    _check_ranges(params, source)
    for recipe in get_args(RecipeName):
        for name in params.models:
            params.named_recipe(recipe, name, scratch=True)
            params.named_recipe(recipe, name, scratch=False)
    return params


def _check_ranges(params: Params, source: str) -> None:
    split = params.split
    held_out = split.val + split.calibration + split.test
    facts = {
        "seed: at least 0": params.seed >= 0,
        "models: name at least one model": bool(params.models),
        "split.val, split.calibration and split.test: each above 0, together below 1": (
            min(split.val, split.calibration, split.test) > 0 and held_out < 1
        ),
        "split.folds: at least 2": split.folds >= 2,
        "split.lockbox: open needs split.protocol grouped": (
            split.lockbox == "closed" or split.protocol == "grouped"
        ),
        "split.fold: at least 0 and below split.folds": 0 <= split.fold < split.folds,
        "evaluate.confidence: above 0.5 and below 1": 0.5 < params.evaluate.confidence < 1,
        "evaluate.resamples: at least 100": params.evaluate.resamples >= 100,
        "train.views: at least 1": params.train.views >= 1,
        f"recipes: exactly {', '.join(get_args(RecipeName))}": (
            set(params.recipes) == set(get_args(RecipeName))
        ),
        "cost.overkill_weight: at least 0": params.cost.overkill_weight >= 0,
        "latency.repeats: at least 1": params.latency.repeats >= 1,
        "select.min_models: at least 1": params.select.min_models >= 1,
        f"promote.min_castings: a number above 0 for profile {params.profile!r}": (
            params.promote.min_castings.get(params.profile, 0) >= 1
        ),
        f"promote.floors: a floor for profile {params.profile!r}": (
            params.profile in params.promote.floors
        ),
    }
    for name, recipe in params.recipes.items():
        facts |= {f"recipes.{name}.{key}": holds for key, holds in _recipe_facts(recipe).items()}
    for demand, holds in facts.items():
        if not holds:
            raise ConfigError(f"{source}: {demand}", hint="correct the value")


def _recipe_facts(recipe: RecipeParams) -> dict[str, bool]:
    augment = recipe.augment
    chances = (augment.horizontal_flip, augment.vertical_flip, augment.paste)
    changes = (augment.stretch, augment.jitter, augment.gamma, augment.lighting, augment.translate)
    return {
        "batch_size: at least 2": recipe.batch_size >= 2,
        "std: above 0": recipe.std > 0,
        "images_per_epoch: at least 2, or null": (
            recipe.images_per_epoch is None or recipe.images_per_epoch >= 2
        ),
        "label_smoothing: at least 0 and below 1": 0 <= recipe.label_smoothing < 1,
        "averaging: at least 0 and below 1": 0 <= recipe.averaging < 1,
        "crossfit: 0, or at least 2": all(
            number >= 0 and number != 1
            for number in (recipe.crossfit, *(it.crossfit or 0 for it in recipe.models.values()))
        ),
        "crossfit: needs keep last": recipe.keep == "last"
        or not any((recipe.crossfit, *(it.crossfit for it in recipe.models.values()))),
        "augment.paste: at most 0.5": augment.paste <= 0.5,
        "augment: chances between 0 and 1": all(0 <= chance <= 1 for chance in chances),
        "augment: changes at least 0 and below 1": all(0 <= change < 1 for change in changes),
        "augment.scale: two numbers above 0, [low, high]": (
            len(augment.scale) == 2 and 0 < augment.scale[0] <= augment.scale[1]
        ),
        "finetune.epochs, scratch.epochs: at least 1": (
            min(recipe.finetune.epochs, recipe.scratch.epochs) >= 1
        ),
    }


def _build(kind: Any, raw: Any, source: str, where: str) -> Any:
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: {where or 'top level'}: expected a mapping, found {raw!r}")
    hints = get_type_hints(kind)
    for key in raw:
        if key not in hints:
            raise ConfigError(
                f"{source}: unknown key {_join(where, key)!r}",
                hint=f"known here: {', '.join(name for name in hints if name != 'raw')}",
            )
    optional = {
        item.name
        for item in fields(kind)
        if item.default is not MISSING or item.default_factory is not MISSING
    }
    for key in hints:
        if key not in raw and key not in optional:
            raise ConfigError(f"{source}: missing key {_join(where, key)!r}", hint="add it")
    return kind(
        **{
            key: _value(hints[key], raw[key], source, _join(where, key))
            for key in hints
            if key in raw
        }
    )


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _value(kind: Any, raw: Any, source: str, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _build(kind, raw, source, where)
    if where == "raw" or kind is Any:
        return raw
    if origin in (Union, types.UnionType):
        if raw is None and type(None) in arguments:
            return None
        return _value(next(a for a in arguments if a is not type(None)), raw, source, where)
    if origin is Literal and raw in arguments:
        return raw
    if origin is dict and isinstance(raw, Mapping):
        return {str(k): _value(arguments[1], v, source, _join(where, k)) for k, v in raw.items()}
    if origin is list and isinstance(raw, list):
        return [_value(arguments[0], item, source, f"{where}[{i}]") for i, item in enumerate(raw)]
    if kind is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    if kind in (int, str, bool) and type(raw) is kind:
        return raw
    expected = " | ".join(map(repr, arguments)) if origin is Literal else _name(kind)
    raise ConfigError(f"{source}: {where}: expected {expected}, found {raw!r}")


def _name(kind: Any) -> str:
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(
        kind, "a list" if get_origin(kind) is list else "a mapping"
    )
