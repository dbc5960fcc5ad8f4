"""What a recipe says about weights: optimizer, learning rate by step, moving average."""

from __future__ import annotations

import copy

import torch
from torch import nn

from zdm_ml.recipes import Recipe

Scheduler = torch.optim.lr_scheduler.LRScheduler

_WARM_UP = 0.2
_RAMP = 10


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return a fused Adam or AdamW over the parameters that require a gradient."""
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return kind(trainable, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)


def make_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> Scheduler:
    """Return the schedule, to be stepped after each of an epoch's `steps`.

    one_cycle (Smith and Topin, arXiv:1708.07120) climbs for a fifth of the steps, then falls to
    zero along a cosine, while Adam's first beta falls from 0.95 to 0.85 and climbs back;
    exponential multiplies the rate by gamma after each epoch.
    """
    if recipe.schedule == "one_cycle":
        total = recipe.epochs * steps + 1
        # A climb of less than one step would be divided by nothing.
        climb = max(_WARM_UP, 2 / total)
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.learning_rate, total_steps=total, pct_start=climb
        )
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: recipe.gamma ** (step // steps)
    )


class MovingAverage:
    """An exponential moving average of a net's weights and buffers, in a net of its own.

    The decay grows to its value over the first steps, so that the random start is forgotten.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Take in the weights after step `step`, counted from 1 over the whole training."""
        decay = min(self._decay, step / (step + _RAMP))
        pairs = list(zip(self.net.state_dict().values(), net.state_dict().values(), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([old for old, _ in averaged], [new for _, new in averaged], 1 - decay)
        for old, new in pairs:
            if not old.is_floating_point():
                old.copy_(new)
