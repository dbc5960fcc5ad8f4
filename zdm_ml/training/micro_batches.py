"""What happens to a batch that does not fit in a GPU's memory: it is taken in smaller parts."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from zdm_ml.errors import TrainingError

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass
class MicroBatches:
    """How many images go through a net at once: `limit` of them, all of a batch where it is None.

    The limit falls by half whenever memory runs out, and stays there for the rest of a training.
    `alone` is whether this process may try again: those that share each step cannot, because the
    others wait in the middle of it.
    """

    name: str
    alone: bool = True
    limit: int | None = None

    def run(self, net: nn.Module, images: int, work: Callable[[Sequence[slice]], Result]) -> Result:
        """Return `work(parts)` of a batch, tried again with smaller parts until it fits.

        `parts` cut the batch into equal parts, as far as that goes. `work` begins anew at each
        call, so that no image is lost or counts twice; what a failed try leaves behind is its part
        in the moving averages of batch norm, in the layers that it reached. Raises `TrainingError`
        when single images do not fit.
        """
        while True:
            parts = self.parts(images)
            largest = max(part.stop - part.start for part in parts)
            try:
                return work(parts)
            except torch.OutOfMemoryError as error:
                if largest == 1 or not self.alone:
                    raise no_room(self.name, largest, alone=self.alone) from error
            # Not in the handler: the error's traceback would keep the failed try's tensors alive.
            self.limit = largest // 2
            self._free(net)

    def parts(self, images: int) -> list[slice]:
        """Return a batch's parts, none larger than the limit, sizes at most one apart."""
        count = 1 if self.limit is None else -(-images // self.limit)
        return [slice(*ends) for ends in pairwise(images * at // count for at in range(count + 1))]

    def _free(self, net: nn.Module) -> None:
        """Say what follows, and give back what the failed try took."""
        normed = any(isinstance(module, _BatchNorm) and module.training for module in net.modules())
        log.warning(
            "%s: out of memory: from here on %s %d images at once%s%s",
            self.name,
            "trains on" if net.training else "looks at",
            self.limit,
            "; a step is still that of a whole batch" if net.training else "",
            ", but batch norm sees these smaller ones" if normed else "",
        )
        net.zero_grad(set_to_none=True)
        gc.collect()
        torch.cuda.empty_cache()


@contextmanager
def named_when_out_of_memory(name: str, images: int) -> Iterator[None]:
    """Turn what else runs out of memory, beside batches of `images`, into the error for it."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise no_room(name, images) from error


def no_room(name: str, images: int, *, alone: bool = True) -> TrainingError:
    """Return the error for a training that the device's memory cannot hold."""
    what = "1 image" if images == 1 else f"{images} images"
    smaller = f"lower models.{name}.input_size in params.yaml, or set train.device to another one"
    together = "start more processes, lower the recipe's batch_size, or train in one process alone"
    return TrainingError(
        f"{name}: out of memory with {what} at once in the net",
        hint=smaller if alone or images == 1 else together,
    )
