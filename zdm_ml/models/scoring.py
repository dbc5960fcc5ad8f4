"""From grey uint8 images to the net's input and to scores: the one preprocessing of the product."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn
from torch.nn import functional

# A hundredth of the dataset's deviation is less than a grey level.
_EVEN = 1e-2


class InputSpec(Protocol):
    """What preprocessing must know of a net: `mean` and `std` are of grey values in [0, 1]."""

    @property
    def input_size(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def std(self) -> float: ...
    @property
    def standardise(self) -> bool: ...


def preprocess(images: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Turn grey uint8 [N, 1, H, W] into the net's float32 input [N, 3, S, S].

    Resizes with an antialiased bilinear filter (S is `spec.input_size`), scales to [0, 1] and
    normalises; with `spec.standardise` each image then gets mean 0 and deviation 1. The three
    channels are views of one.
    """
    size = [spec.input_size, spec.input_size]
    resized = functional.interpolate(
        images.to(torch.float32), size, mode="bilinear", align_corners=False, antialias=True
    )
    return to_input((resized / 255 - spec.mean) / spec.std, standardise=spec.standardise)


def to_input(grey: torch.Tensor, *, standardise: bool) -> torch.Tensor:
    """Turn normalised grey float32 [N, 1, S, S] into the net's input [N, 3, S, S]."""
    if standardise:
        deviation, mean = torch.std_mean(grey, (2, 3), keepdim=True)
        # An even picture stays even instead of becoming noise.
        grey = (grey - mean) / deviation.clamp_min(_EVEN)
    return grey.expand(-1, 3, -1, -1)


class ScoringModule(nn.Module):
    """A net with its preprocessing and softmax inside: grey images in, scores out."""

    def __init__(self, net: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.net = net
        self.input_size = spec.input_size
        self.mean = spec.mean
        self.std = spec.std
        self.standardise = spec.standardise

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 [N], P(defect) of uint8 [N, 1, H, W] or [N, H, W]."""
        if images.ndim == 3:
            images = images.unsqueeze(1)
        logits: torch.Tensor = self.net(preprocess(images, self))
        return logits.softmax(1)[:, 1]
