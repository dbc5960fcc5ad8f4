"""params.yaml as frozen dataclasses: an unknown, missing or ill-typed key is named."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from zdm_ml.errors import ConfigError

Transfer = Literal["full", "partial", "feature_extraction"]
Profile = Literal["full", "quick", "smoke"]
Protocol = Literal["grouped", "shipped", "kfold"]


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
    """Probabilities of flips, degrees, translate and jitter as shares, scale as [low, high]."""

    horizontal_flip: float
    vertical_flip: float
    degrees: float
    translate: float
    scale: list[float]
    jitter: float


@dataclass(frozen=True)
class Recipe:
    """Adam with `learning_rate` and `weight_decay`; the rate is multiplied by `gamma` per epoch."""

    learning_rate: float
    weight_decay: float
    epochs: int
    gamma: float


@dataclass(frozen=True)
class TrainParams:
    weights: str
    device: str
    precision: Literal["auto", "fp32", "bf16"]
    batch_size: int
    mean: float
    std: float
    augment: AugmentParams
    finetune: Recipe
    scratch: Recipe


@dataclass(frozen=True)
class ModelParams:
    """`finetune` and `scratch` override single keys of the recipes in `train`."""

    input_size: int
    transfer: Transfer
    finetune: dict[str, float]
    scratch: dict[str, float]


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
        """Return the recipe of a model: the shared one with the model's own keys laid over it."""
        model = self.model(name)
        base, changes = (
            (self.train.scratch, model.scratch)
            if scratch
            else (self.train.finetune, model.finetune)
        )
        unknown = set(changes) - {item.name for item in fields(Recipe)}
        if unknown:
            section = "scratch" if scratch else "finetune"
            raise ConfigError(f"params.yaml: models.{name}.{section}: unknown key {min(unknown)!r}")
        known = cast(dict[str, Any], dict(changes))
        if "epochs" in known:
            known["epochs"] = int(known["epochs"])
        return replace(base, **known)


def load_params(path: Path) -> Params:
    """Read and check a params file."""
    import yaml  # here, so that a GPU node without it can still use the dataclasses

    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path} is missing", hint="run from the project's root") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    return parse_params(raw, str(path))


def parse_params(raw: Any, source: str) -> Params:
    """Check a mapping as read from YAML; `source` names it in errors."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: expected a mapping of sections")
    params = cast(Params, _build(Params, {**raw, "raw": raw}, source, ""))
    for name in params.models:
        params.recipe(name, scratch=True)
        params.recipe(name, scratch=False)
    _check_ranges(params, source)
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
        "train.batch_size: at least 2": params.train.batch_size >= 2,
        "train.std: above 0": params.train.std > 0,
        "train.augment.scale: two numbers, [low, high]": len(params.train.augment.scale) == 2,
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
    for demand, holds in facts.items():
        if not holds:
            raise ConfigError(f"{source}: {demand}", hint="correct the value")


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
    for key in hints:
        if key not in raw:
            raise ConfigError(f"{source}: missing key {_join(where, key)!r}", hint="add it")
    return kind(**{key: _value(hints[key], raw[key], source, _join(where, key)) for key in hints})


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
