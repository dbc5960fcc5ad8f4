"""Which parameters a fine-tuning changes: all, the last blocks, or the head alone."""

from __future__ import annotations

from torch import nn

from zdm_ml.errors import ConfigError
from zdm_ml.models.zoo import architecture

STRATEGIES = ("full", "partial", "feature_extraction")


def apply_transfer(name: str, net: nn.Module, strategy: str) -> int:
    """Freeze what `strategy` leaves alone and return the number of trainable parameters.

    full: nothing is frozen; partial: the architecture's last blocks and its head are trained;
    feature_extraction: the head alone.
    """
    if strategy not in STRATEGIES:
        raise ConfigError(
            f"unknown transfer strategy {strategy!r}; known: {', '.join(STRATEGIES)}",
            hint=f"correct models.{name}.transfer in params.yaml",
        )
    entry = architecture(name)
    net.requires_grad_(strategy == "full")
    net.get_submodule(entry.head).requires_grad_(True)
    for module in entry.last if strategy == "partial" else ():
        net.get_submodule(module).requires_grad_(True)
    return trainable_parameters(net)


def train_mode(net: nn.Module) -> None:
    """Put `net` into training mode, except frozen parts: their batch statistics stay as learnt."""
    net.train()
    _rest_frozen(net)


def trainable_parameters(net: nn.Module) -> int:
    """Return how many numbers an optimizer would change."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def _rest_frozen(module: nn.Module) -> None:
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        _rest_frozen(child)
