"""params.yaml as frozen dataclasses: an unknown, missing or ill-typed key is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from zdm_ml.errors import ConfigError
from zdm_ml.params_demands import params_demands
from zdm_ml.recipes import ModelOverrides, Recipe, RecipeName, RecipeParams, resolve
from zdm_ml.schema import build

Transfer = Literal["full", "partial", "feature_extraction"]
Profile = Literal["full", "quick", "smoke"]
Protocol = Literal["grouped", "shipped", "kfold"]
Precision = Literal["auto", "fp32", "bf16"]


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
class TrainParams:
    """`views`: augmented copies of each image that a frozen trunk looks at."""

    recipe: RecipeName
    weights: str
    device: str
    precision: Precision
    views: int


@dataclass(frozen=True)
class ModelParams:
    """`finetune` and `scratch` override single keys of any recipe's, `recipes` those of one."""

    input_size: int
    transfer: Transfer
    finetune: dict[str, float]
    scratch: dict[str, float]
    recipes: dict[str, ModelOverrides] = field(default_factory=dict)


@dataclass(frozen=True)
class CostParams:
    """Money per casting; `prevalence` is the plant's share of defective ones."""

    currency: str
    escape: float
    overkill: float
    review: float
    prevalence: float
    takt_seconds: float


@dataclass(frozen=True)
class VerdictParams:
    """The verdict ok is promised to at most `max_escape_rate` of the defective castings."""

    max_escape_rate: float
    confidence: float


@dataclass(frozen=True)
class EvaluateParams:
    """`perturbation_limit` images at most are scored under each perturbation; null: all of test."""

    batch_size: int
    confidence: float
    resamples: int
    perturbation_limit: int | None


@dataclass(frozen=True)
class SaliencyParams:
    """Counts of 0 switch a measure off; `tolerance` is a share of the image's side."""

    castings: int
    floor: float
    tolerance: float
    threshold: float
    images: int
    steps: int
    maps: int


@dataclass(frozen=True)
class LatencyParams:
    warmup: int
    repeats: int
    threads: int


@dataclass(frozen=True)
class ConfirmParams:
    """`seeds`: trainings of each of the two leading models, the evaluated one included."""

    seeds: int


@dataclass(frozen=True)
class SelectParams:
    """Margins by which a cheaper model may be worse; `cost_margin` is money per 10,000 parts."""

    policy: Literal["cheapest_not_worse", "lowest_cost"]
    escape_margin: float
    overkill_margin: float
    cost_margin: float
    max_megabytes: float | None
    min_models: int
    test_uses: int


@dataclass(frozen=True)
class PromoteParams:
    """What stands in a mapping holds by profile; floors are balanced accuracies.

    `approvers` are user ids of the orchestrator; they have `approval_hours` to answer.
    """

    cost_tolerance: float
    escape_margins: dict[str, float]
    slice_margin: float
    min_castings: dict[str, int]
    floors: dict[str, float]
    perturbation_floors: dict[str, float]
    require_approval: dict[str, bool]
    approvers: list[str]
    approval_hours: float


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
    verdict: VerdictParams
    evaluate: EvaluateParams
    saliency: SaliencyParams
    latency: LatencyParams
    confirm: ConfirmParams
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
        """Return one recipe of a model: recipe, the model's keys, then its keys for that recipe."""
        model = self.model(name)
        start: Literal["finetune", "scratch"] = "scratch" if scratch else "finetune"
        own = getattr(model, start)
        overrides = model.recipes.get(recipe, ModelOverrides())
        return resolve(recipe, self.recipes[recipe], name, model.input_size, start, own, overrides)


def load_params(path: Path, *, recipe: str | None = None) -> Params:
    """Read and check a params file; `recipe` takes the place of its `train.recipe`."""
    import yaml  # here, so that a GPU node without it can still use the dataclasses

    try:
        # libyaml: Airflow reads this file again and again, and Python takes ten times as long.
        raw = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
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
    params = cast(Params, build(Params, {**raw, "raw": raw}, source))
    for demand, holds in params_demands(params).items():
        if not holds:
            raise ConfigError(f"{source}: {demand}", hint="correct the value")
    for recipe in get_args(RecipeName):
        for name in params.models:
            params.named_recipe(recipe, name, scratch=True)
            params.named_recipe(recipe, name, scratch=False)
    return params
