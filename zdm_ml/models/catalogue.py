"""What `zdm models` lists."""

from __future__ import annotations

from typing import Any

import torch

from zdm_ml.models import zoo
from zdm_ml.models.transfer import apply_transfer
from zdm_ml.params import Params


def describe(params: Params | None = None) -> list[dict[str, Any]]:
    """List the architectures as the reference recipe builds them, or those in `params` as they are.

    Keys: name, family, parameters, trainable, input_size, transfer, weights, url, licence.
    """
    if params is None:
        entries = [zoo.architecture(name) for name in zoo.MODEL_NAMES]
        return [_row(entry, entry.reference_size, "full", "reference") for entry in entries]
    recipes = {name: params.recipe(name, scratch=True) for name in params.models}
    return [
        _row(zoo.architecture(name), recipe.input_size, params.model(name).transfer, recipe.name)
        for name, recipe in recipes.items()
    ]


def _row(entry: zoo.Architecture, input_size: int, transfer: str, recipe: str) -> dict[str, Any]:
    with torch.device("meta"):  # counts need no memory and no random numbers
        net = zoo.build(entry.name, input_size, recipe=recipe)
    return {
        "name": entry.name,
        "family": entry.family,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "trainable": apply_transfer(entry.name, net, transfer),
        "input_size": input_size,
        "transfer": transfer,
        "weights": entry.weights.source if entry.weights else "none",
        "url": entry.weights.url if entry.weights else "",
        "licence": entry.licence,
    }
