"""Training images on the device that trains, so that no epoch sends them again."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zdm_ml.training.sides import Images, Indices

log = logging.getLogger(__name__)

# What the net, its gradients and its activations are left.
_SHARE_OF_FREE = 0.5
# Bytes copied at a time: the array may be a file far larger than memory.
_BLOCK = 64 * 2**20


class DeviceImages:
    """All images that sides share, uint8 [M, S, S], on a device if they fit in half of its memory.

    Images that do not fit stay where they are, in `host`; a batch then travels from pinned memory.
    `resident` overrides the choice.
    """

    def __init__(
        self, images: Images, device: torch.device, *, resident: bool | None = None
    ) -> None:
        self.host = images
        self.device = device
        keep = _fits(images.nbytes, device) if resident is None else resident
        self._resident = _upload(images, device) if keep else None

    @property
    def resident(self) -> bool:
        """Whether the images are on the device."""
        return self._resident is not None

    @property
    def size(self) -> int:
        """The images' side in pixels."""
        return int(self.host.shape[-1])

    def stage(self, rows: Indices) -> torch.Tensor:
        """Return what has to travel for `rows` [B], in host memory: rows, or their pictures."""
        return in_host_memory(rows if self.resident else self.host[rows], self.device)

    def unstage(self, staged: torch.Tensor) -> torch.Tensor:
        """Return the pictures of what `stage` returned, uint8 [B, S, S], on the device."""
        arrived = staged.to(self.device, non_blocking=True)
        return arrived if self._resident is None else self._resident.index_select(0, arrived)

    def pictures(self, rows: Indices) -> torch.Tensor:
        """Return the pictures of `rows` [B], uint8 [B, S, S], on the device."""
        return self.unstage(self.stage(rows))


def in_host_memory(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Return an array as a tensor that can travel to `device` while the CPU goes on."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if device.type == "cuda" else tensor


def _fits(needed: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    fits = needed <= free * _SHARE_OF_FREE
    if not fits:
        log.info("images (%.1f GB) stay off %s: %.1f GB are free", needed / 1e9, device, free / 1e9)
    return fits


def _upload(images: Images, device: torch.device) -> torch.Tensor:
    resident = torch.empty(images.shape, dtype=torch.uint8, device=device)
    step = max(1, _BLOCK // max(1, images[:1].nbytes))
    for start in range(0, len(images), step):
        # A copy, because torch takes no array that is read-only.
        block = np.array(images[start : start + step])
        resident[start : start + step].copy_(torch.from_numpy(block))
    return resident
