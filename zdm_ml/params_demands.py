"""What the values of params.yaml must fulfil, each demand in the words of its error."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from zdm_ml.recipes import RecipeName, demands

if TYPE_CHECKING:
    from zdm_ml.params import Params, PromoteParams, SplitParams

MODEL_NAMES = (
    "luna",
    "alexnet",
    "resnet18",
    "efficientnet_v2_s",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
    "dino_vits8",
)
"""Those of the zoo, which needs torch; a DAG that reads params.yaml must not."""


def params_demands(params: Params) -> dict[str, bool]:
    """Return each demand, and whether it holds."""
    return {
        "seed: at least 0": params.seed >= 0,
        **_split_demands(params.split),
        **_learning_demands(params),
        **_judging_demands(params),
        **_choosing_demands(params),
        **_promotion_demands(params.promote, params.profile),
    }


def _split_demands(split: SplitParams) -> dict[str, bool]:
    held_out = (split.val, split.calibration, split.test)
    return {
        "split.val, split.calibration and split.test: each above 0, together below 1": (
            min(held_out) > 0 and sum(held_out) < 1
        ),
        "split.folds: at least 2": split.folds >= 2,
        "split.lockbox: open needs split.protocol grouped": (
            split.lockbox == "closed" or split.protocol == "grouped"
        ),
        "split.fold: at least 0 and below split.folds": 0 <= split.fold < split.folds,
    }


def _learning_demands(params: Params) -> dict[str, bool]:
    known, recipes = ", ".join(MODEL_NAMES), ", ".join(get_args(RecipeName))
    found = {
        "train.views: at least 1": params.train.views >= 1,
        f"recipes: exactly {recipes}": set(params.recipes) == set(get_args(RecipeName)),
        "models: name at least one model": bool(params.models),
    }
    for name, model in params.models.items():
        found[f"models.{name}: no such model, only {known}"] = name in MODEL_NAMES
        for own in model.recipes:
            where = f"models.{name}.recipes.{own}"
            found[f"{where}: no such recipe, only {recipes}"] = own in params.recipes
    for name, recipe in params.recipes.items():
        found |= {f"recipes.{name}.{key}": holds for key, holds in demands(recipe).items()}
    return found


def _judging_demands(params: Params) -> dict[str, bool]:
    cost, verdict, saliency = params.cost, params.verdict, params.saliency
    return {
        "cost.escape, cost.overkill and cost.review: at least 0, escape above 0": (
            cost.escape > 0 and min(cost.overkill, cost.review) >= 0
        ),
        "cost.prevalence: above 0 and below 1": 0 < cost.prevalence < 1,
        "cost.takt_seconds: above 0": cost.takt_seconds > 0,
        "verdict.max_escape_rate: above 0 and below 1": 0 < verdict.max_escape_rate < 1,
        "verdict.confidence: above 0.5 and below 1": 0.5 < verdict.confidence < 1,
        "evaluate.confidence: above 0.5 and below 1": 0.5 < params.evaluate.confidence < 1,
        "evaluate.resamples: at least 100": params.evaluate.resamples >= 100,
        "saliency.castings, saliency.images and saliency.maps: at least 0": (
            min(saliency.castings, saliency.images, saliency.maps) >= 0
        ),
        "saliency.floor and saliency.threshold: above 0 and at most 1": (
            0 < saliency.floor <= 1 and 0 < saliency.threshold <= 1
        ),
        "saliency.tolerance: at least 0 and below 1": 0 <= saliency.tolerance < 1,
        "saliency.steps: at least 2": saliency.steps >= 2,
        "latency.repeats: at least 1": params.latency.repeats >= 1,
    }


def _choosing_demands(params: Params) -> dict[str, bool]:
    select = params.select
    return {
        "confirm.seeds: at least 1": params.confirm.seeds >= 1,
        "select.escape_margin: above 0 and below 1": 0 < select.escape_margin < 1,
        "select.overkill_margin: above 0 and below 1": 0 < select.overkill_margin < 1,
        "select.cost_margin: at least 0": select.cost_margin >= 0,
        "select.test_uses: at least 1": select.test_uses >= 1,
        "select.min_models: at least 1": select.min_models >= 1,
    }


def _promotion_demands(promote: PromoteParams, profile: str) -> dict[str, bool]:
    names = promote.approvers
    return {
        f"promote.min_castings: a number above 0 for profile {profile!r}": (
            promote.min_castings.get(profile, 0) >= 1
        ),
        f"promote.floors and promote.perturbation_floors: one for profile {profile!r}": (
            profile in promote.floors and profile in promote.perturbation_floors
        ),
        f"promote.escape_margins: above 0, at most 1, for profile {profile!r}": (
            0 < promote.escape_margins.get(profile, 0) <= 1
        ),
        f"promote.require_approval: true or false for profile {profile!r}": (
            profile in promote.require_approval
        ),
        # Airflow takes an empty list for "anybody".
        "promote.approvers: at least one name, none empty, none twice": (
            bool(names) and all(map(str.strip, names)) and len(set(names)) == len(names)
        ),
        "promote.approval_hours: above 0 and at most 8760, a year": (
            0 < promote.approval_hours <= 8760
        ),
    }
