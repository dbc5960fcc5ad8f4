"""LUNA: the small net from scratch of the reference work."""

from __future__ import annotations

import torch
from torch import nn

CHANNELS = (8, 16, 32, 64)
SMALLEST = 2 ** len(CHANNELS)


class Luna(nn.Module):
    """Batch norm on the input, four blocks of two 3x3 convolutions, one linear layer.

    Takes float32 [N, 3, input_size, input_size] and returns logits [N, num_classes]. The linear
    layer's width follows from `input_size`. Source: "Machine Learning for Zero Defect
    Manufacturing Platform", TU Wien.
    """

    def __init__(self, input_size: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        widths = (3, *CHANNELS)
        self.blocks = nn.Sequential(*map(_block, widths, CHANNELS))
        side = input_size // SMALLEST
        self.head = nn.Linear(CHANNELS[-1] * side * side, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits: a softmax here would be applied twice by cross-entropy."""
        features: torch.Tensor = self.blocks(self.norm(images))
        logits: torch.Tensor = self.head(features.flatten(1))
        return logits


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )
