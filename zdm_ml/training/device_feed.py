"""Batches augmented on the device that trains, with the draws that augment them on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from zdm_ml.data.augment import (
    SHARPNESS,
    lighting_tables,
    mixed_images,
    pasted_patches,
    smooth_field,
    warp_matrices,
)
from zdm_ml.data.draws import CELLS, Places, Reals, draws
from zdm_ml.data.pasting import Patch
from zdm_ml.recipes import AugmentParams
from zdm_ml.training.batches import Epochs, ahead
from zdm_ml.training.device_images import DeviceImages, in_host_memory
from zdm_ml.training.sides import Indices, Targets


@dataclass(frozen=True)
class Partners:
    """What B images are mixed with: staged and warped as these, where `mixed` [B] says so.

    Where `masks` [B, 4, 4] are low, the partner shows.
    """

    staged: torch.Tensor
    warps: torch.Tensor
    masks: torch.Tensor
    mixed: torch.Tensor


@dataclass(frozen=True)
class Plan:
    """What the CPU decides about B images, in host memory that the device can read by itself.

    `staged` is from `DeviceImages.stage`; `warps` [B, 2, 3] lead from target pixels to the
    coordinates of `grid_sample`; `fields` [B, 4, 4] are deviations of light; `patches` [B] number
    patches, the last of which shows nothing; `tables` [B, 256] normalise grey levels.
    """

    staged: torch.Tensor
    warps: torch.Tensor
    fields: torch.Tensor
    patches: torch.Tensor
    tables: torch.Tensor
    targets: torch.Tensor
    partners: Partners | None


class DeviceAugmenter:
    """Shows what an `Augmenter` shows, from images that are on a device, a batch at a time.

    `plan` needs the CPU alone and may run in another thread. `make` queues work for the device and
    reads nothing back, so a GPU never waits for the CPU. Where something is drawn on pictures, some
    grey levels differ by one from an `Augmenter`'s: few, but every seventh beside an OpenCV older
    than 5, which interpolates at thirty-seconds of a pixel.
    """

    def __init__(
        self,
        params: AugmentParams,
        seed: int,
        images: DeviceImages,
        patches: Sequence[Patch] = (),
        *,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        self.images = images
        self._params = params
        self._seed = seed
        self._count = len(patches)
        self._mean, self._std = mean, std
        device = images.device
        self._dense = _dense(patches, images.size, device) if params.paste and patches else None
        self._spread = torch.from_numpy(_spread(images.size)).to(device)
        self._pixels = torch.arange(images.size, dtype=torch.float32, device=device)

    @property
    def mixes(self) -> bool:
        """Whether good parts are mixed with others."""
        return self._params.mix > 0

    def batch(
        self,
        rows: Indices,
        targets: Targets,
        epoch: int,
        places: Places,
        partners: Indices | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `Augmenter.batch` returns of the images `rows` [B], on the device."""
        return self.make(self.plan(rows, targets, epoch, places, partners))

    def plan(
        self,
        rows: Indices,
        targets: Targets,
        epoch: int,
        places: Places,
        partners: Indices | None = None,
    ) -> Plan:
        """Decide about the images `rows` [B], which are at `places` [B] in the epoch.

        `partners` [B] are rows too, of what good parts may be mixed with.
        """
        params, images = self._params, self.images
        drawn = draws(self._seed, epoch, places)
        levels = lighting_tables(params, drawn.uniform, images.host[rows])
        pasted = pasted_patches(params, drawn.uniform, targets, self._count)
        send = partial(in_host_memory, device=images.device)
        return Plan(
            images.stage(rows),
            warps=send(_grid_warps(params, drawn.uniform, images.size)),
            fields=send((params.lighting * drawn.field).astype(np.float32)),
            patches=send(np.where(pasted >= 0, pasted, self._count)),
            tables=send(((levels / 255 - self._mean) / self._std).astype(np.float32)),
            targets=send(np.where(pasted >= 0, 1, targets)),
            partners=None
            if partners is None
            else Partners(
                images.stage(partners),
                warps=send(_grid_warps(params, drawn.partner, images.size)),
                masks=send(drawn.mask),
                mixed=send(mixed_images(params, drawn.uniform, targets)),
            ),
        )

    def make(self, plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
        """Return normalised pictures, float32 [B, S, S], and targets, int64 [B], on the device."""
        levels = self._warped(self.images.unstage(plan.staged), plan.warps)
        if plan.partners is not None:
            levels = self._mixed(levels, plan.partners)
        if self._dense is not None:
            levels = _pasted(levels, *self._dense, self._sent(plan.patches))
        if self._params.lighting:
            levels = self._shaded(levels, self._sent(plan.fields))
        return self._lit(levels, plan.tables), self._sent(plan.targets)

    def _sent(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.images.device, non_blocking=True)

    def _lit(self, levels: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
        """Return normalised pictures, float32 [B, S, S], of whole grey levels."""
        return self._sent(tables).gather(1, levels.flatten(1).long()).view(levels.shape)

    def _warped(self, pictures: torch.Tensor, warps: torch.Tensor) -> torch.Tensor:
        """Return whole grey levels, float32 [B, S, S], of warped pictures.

        The grid is summed rather than multiplied as in `affine_grid`: where matrix products are
        allowed TF32, that would move pixels.
        """
        warps = self._sent(warps)
        pixels = self._pixels[None, :, None]
        across = pixels * warps[:, None, :, 0] + warps[:, None, :, 2]
        down = pixels * warps[:, None, :, 1]
        warped = functional.grid_sample(
            pictures.float().unsqueeze(1),
            across[:, None, :] + down[:, :, None],
            mode=self._params.interpolation,
            padding_mode="border",
            align_corners=False,
        )
        return warped.squeeze(1).round_()

    def _mixed(self, levels: torch.Tensor, partners: Partners) -> torch.Tensor:
        others = self._warped(self.images.unstage(partners.staged), partners.warps)
        (std, mean), (deviation, middle) = (
            torch.std_mean(each, (1, 2), correction=0, keepdim=True) for each in (levels, others)
        )
        others = (others - middle) * (std / deviation.clamp_min(1)) + mean
        share = torch.sigmoid(SHARPNESS * self._smooth(self._sent(partners.masks)))
        mixed = torch.lerp(others, levels, share).round_().clamp_(0, 255)
        return torch.where(self._sent(partners.mixed)[:, None, None], mixed, levels)

    def _shaded(self, levels: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
        return (levels * (1 + self._smooth(fields))).round_().clamp_(0, 255)

    def _smooth(self, fields: torch.Tensor) -> torch.Tensor:
        return self._spread @ fields @ self._spread.T


@dataclass(frozen=True)
class DeviceFeed(Epochs):
    """A side as augmented batches on a device, in the order of a `Feed` of the same side.

    The augmenter's images are the array that the side's places refer to.
    """

    augmenter: DeviceAugmenter

    def batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield float32 [B, S, S] and targets, each planned by a thread a few batches ahead."""

        def plan(share: tuple[Indices, Indices]) -> Plan:
            batch, places = share
            rows, targets = self.side.places[batch], self.side.targets[batch]
            found = self.partners(epoch, places) if self.augmenter.mixes else None
            partners = None if found is None else self.side.places[found]
            return self.augmenter.plan(rows, targets, epoch, places, partners)

        with closing(ahead(plan, self.shares(epoch))) as plans:
            yield from map(self.augmenter.make, plans)


def _grid_warps(params: AugmentParams, uniform: Reals, size: int) -> npt.NDArray[np.float32]:
    """Return drawn matrices to where `grid_sample` finds source pixels, float32 [B, 2, 3].

    Without `align_corners` the middle of pixel i is at (2 i + 1) / size - 1.
    """
    scaled = warp_matrices(params, uniform, size) * 2 / size
    scaled[:, :, 2] += 1 / size - 1
    return scaled.astype(np.float32)


def _spread(size: int) -> npt.NDArray[np.float32]:
    """Return the matrix A [size, 4] for which A @ field @ A.T is the field as the CPU spreads it.

    OpenCV interpolates rows and columns apart; so column k is what it makes of the k-th unit row.
    """
    units = np.eye(CELLS, dtype=np.float32)
    return np.stack([smooth_field(np.tile(unit, (CELLS, 1)), size)[0] for unit in units], 1)


def _dense(
    patches: Sequence[Patch], size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cover and level of every patch and of none, float16 [K + 1, S, S]."""
    cover, level = np.zeros((2, len(patches) + 1, size, size), np.float16)
    for at, patch in enumerate(patches):
        cover[at, patch.rows, patch.columns] = patch.cover
        level[at, patch.rows, patch.columns] = patch.level
    return torch.from_numpy(cover).to(device), torch.from_numpy(level).to(device)


def _pasted(
    levels: torch.Tensor, cover: torch.Tensor, level: torch.Tensor, patches: torch.Tensor
) -> torch.Tensor:
    """Paint a patch on every picture: painting nothing on most costs less than picking some."""
    covers, paint = cover.index_select(0, patches), level.index_select(0, patches)
    return (levels + covers.float() * (paint.float() - levels)).trunc_()
