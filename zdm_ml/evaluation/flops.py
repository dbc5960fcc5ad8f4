"""The arithmetic of a forward pass, counted without running it."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from zdm_ml.models import zoo


def flops(name: str, input_size: int, recipe: str) -> int:
    """Return the floating-point operations of one image; a multiply-add counts as two."""
    with torch.device("meta"):
        return count_flops(zoo.build(name, input_size, recipe=recipe), input_size)


def count_flops(net: nn.Module, input_size: int) -> int:
    """Return the operations of a net on the meta device for one image of `input_size`."""
    # In eval mode attention runs as one fused operation that the counter does not know; there is
    # none on the meta device.
    image = torch.empty(1, 3, input_size, input_size, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net.eval()(image)
    return int(counter.get_total_flops())
