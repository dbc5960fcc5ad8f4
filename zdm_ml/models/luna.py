"""LUNA: the small net from scratch of the reference work, and what it became."""

from __future__ import annotations

import torch
from torch import nn

CHANNELS = (8, 16, 32, 64)
SMALLEST = 2 ** len(CHANNELS)
MODERN_CHANNELS = (16, 16, 32, 64, 64)


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


class ModernLuna(nn.Module):
    """LUNA for castings that nobody has seen.

    What differs from `Luna`: it looks at one grey channel, without batch norm on it, through a 5x5
    convolution of stride 2; the widths are 16, 16, 32, 64, 64; every convolution is followed by
    batch norm; blocks pool before their convolutions; the last maps are pooled by their maximum,
    so that a small defect counts wherever it is and the number of parameters (148,722) does not
    depend on `input_size`. In eval mode the logits are the mean over four quarter turns.
    """

    def __init__(self, input_size: int, num_classes: int) -> None:
        super().__init__()
        first = MODERN_CHANNELS[0]
        self.stem = nn.Sequential(
            nn.Conv2d(1, first, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
        )
        widths = zip(MODERN_CHANNELS, MODERN_CHANNELS[1:], strict=False)
        self.blocks = nn.Sequential(
            *(
                # The stem has halved the size already.
                _normed_block(before, after, pool=number > 0)
                for number, (before, after) in enumerate(widths)
            )
        )
        self.head = nn.Linear(MODERN_CHANNELS[-1], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [N, num_classes] of float32 [N, 3, S, S] whose channels are alike."""
        grey = images[:, :1]
        if self.training:
            return self._logits(grey)
        turned = torch.cat([torch.rot90(grey, turns, (2, 3)) for turns in range(4)])
        return self._logits(turned).view(4, images.shape[0], -1).mean(0)

    def _logits(self, grey: torch.Tensor) -> torch.Tensor:
        # Twice as fast on one core, also where nobody has laid out the weights for it.
        maps = self.stem(grey).contiguous(memory_format=torch.channels_last)
        logits: torch.Tensor = self.head(self.blocks(maps).amax((2, 3)))
        return logits


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


def _normed_block(channels_in: int, channels_out: int, *, pool: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.MaxPool2d(2)] if pool else []
    for before in (channels_in, channels_out):
        layers.append(nn.Conv2d(before, channels_out, 3, padding=1, bias=False))
        layers += [nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
