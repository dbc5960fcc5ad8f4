"""From grey uint8 images to the net's input and to scores: the one preprocessing of the product."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn
from torch.nn import functional


class InputSpec(Protocol):
    """What preprocessing must know of a net: `mean` and `std` are of grey values in [0, 1]."""

    @property
    def input_size(self) -> int: ...
    @property
    def mean(self) -> float: ...
    @property
    def std(self) -> float: ...


def preprocess(images: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Turn grey uint8 [N, 1, H, W] into the net's float32 input [N, 3, S, S].

    Resizes with an antialiased bilinear filter (S is `spec.input_size`), scales to [0, 1] and
    normalises; the three channels are views of one.
    """
    size = [spec.input_size, spec.input_size]
    resized = functional.interpolate(
        images.to(torch.float32), size, mode="bilinear", align_corners=False, antialias=True
    )
    grey = (resized / 255 - spec.mean) / spec.std
    return grey.expand(-1, 3, -1, -1)


class ScoringModule(nn.Module):
    """A net with its preprocessing and softmax inside: grey images in, scores out."""

    def __init__(self, net: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.net = net
        self.input_size = spec.input_size
        self.mean = spec.mean
        self.std = spec.std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 [N], P(defect) of uint8 [N, 1, H, W] or [N, H, W]."""
        if images.ndim == 3:
            images = images.unsqueeze(1)
        logits: torch.Tensor = self.net(preprocess(images, self))
        return logits.softmax(1)[:, 1]
