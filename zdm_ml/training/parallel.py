"""Several processes that train one net together, each on its share of every batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from zdm_ml.errors import ConfigError, TrainingError
from zdm_ml.files import sha256_json

PATIENCE = timedelta(minutes=30)
"""How long processes wait for one of them: it validates, decodes images or waits for a lock."""

# Far enough apart that no epoch of one process has the seed of another's.
_BETWEEN_SEEDS = 1_000_000_007


@dataclass(frozen=True)
class Processes:
    """This process among `count` that train one net together, as `torchrun` numbers them.

    `local` counts those of one machine. The process of rank 0 leads: it validates, saves and
    reports, and what it finds is what all go on with.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.count == 1

    def device(self, chosen: torch.device) -> torch.device:
        """Return the device of this process: a GPU of its own, or the CPU that all share."""
        if self.alone or chosen.type != "cuda":
            return chosen
        if str(chosen) != "cuda":
            raise ConfigError(
                f"train.device {chosen} is one GPU for {self.count} processes",
                hint="set train.device to auto or cuda in params.yaml: each takes one of its own",
            )
        if self.local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {self.local} of this machine has no GPU of its own:"
                f" there are {torch.cuda.device_count()}",
                hint="start as many processes as there are GPUs (--nproc-per-node)",
            )
        return torch.device("cuda", self.local)

    @contextmanager
    def joined(self, device: torch.device, patience: timedelta = PATIENCE) -> Iterator[None]:
        """Hold the connection between the processes: nccl between GPUs, gloo between CPUs.

        Where to meet is read from the environment by torch. At the end all wait for each other.
        One that ends early, or keeps the others waiting longer than `patience`, ends them all:
        they raise `TrainingError`.
        """
        if self.alone:
            yield
            return
        try:
            self._meet(device, patience)
            yield
            dist.barrier()
        # What the lost connection leaves is not closed: that would wait for those who are gone.
        except RuntimeError as error:
            if not _lost(error):
                raise
            raise TrainingError(
                f"process {self.rank} of {self.count} lost the others: {_reason(error)}",
                hint="the process that ended first says why; start all of them again:"
                " a training goes on at its last epoch",
            ) from error
        dist.destroy_process_group()

    @contextmanager
    def lead_first(self) -> Iterator[None]:
        """Let the others wait until the leading process is through: they find what it left."""
        if not self.leads:
            dist.barrier()
        yield
        if self.leads and not self.alone:
            dist.barrier()

    def seed(self, seed: int) -> int:
        """Return a seed of this process alone for what each draws for itself, such as dropout."""
        return seed + self.rank * _BETWEEN_SEEDS

    def synchronised(self, net: nn.Module, device: torch.device) -> nn.Module:
        """Return `net` with batch norm over whole batches, on GPUs; it keeps its parameters.

        On a CPU, where torch has no such layer, each process normalises by its own share, and the
        moving averages are those of the leading process.
        """
        if self.alone or device.type != "cuda":
            return net
        convert: Callable[[nn.Module], nn.Module] = nn.SyncBatchNorm.convert_sync_batchnorm
        return convert(net)

    def shared(self, net: nn.Module, device: torch.device) -> nn.Module:
        """Return what trains `net`: its backward pass leaves the mean gradient of all processes.

        All begin with the weights of the leading process.
        """
        if self.alone:
            return net
        devices = [device.index] if device.type == "cuda" else None
        wrapped: nn.Module = DistributedDataParallel(
            net, device_ids=devices, gradient_as_bucket_view=True
        )
        return wrapped

    def weight(self, own: int, images: int) -> float:
        """Return what the mean loss over `own` of a batch's images counts in its gradient.

        The mean of all processes' gradients is the batch's only with these weights, because the
        shares of a batch may differ by an image. A process that took the batch whole did what all
        do: see `Epochs.shares`.
        """
        return 1.0 if own == images else own * self.count / images

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of all processes' tensors."""
        if not self.alone:
            dist.all_reduce(value)
        return value

    def told(self, values: Sequence[float], device: torch.device) -> list[float]:
        """Return the values of the leading process, waiting for them."""
        if self.alone:
            return list(values)
        told = torch.tensor(values, dtype=torch.float64, device=device)
        dist.broadcast(told, 0)
        return [float(value) for value in told]

    def agree(self, name: str, facts: Mapping[str, Any], device: torch.device) -> None:
        """Raise `TrainingError` unless the leading process has the same facts before it."""
        # As many digits as a float64 holds.
        digest = float(int(sha256_json(facts)[:12], 16))
        if self.told([digest], device) != [digest]:
            raise TrainingError(
                f"{name}: process {self.rank} would train something else than the leading one,"
                " or from another epoch on",
                hint="let all processes read the same state folder (ZDM_HOME), weights and"
                " params.yaml",
            )

    @torch.no_grad()
    def spread(self, net: nn.Module) -> None:
        """Give every process the net of the leading one."""
        if self.alone:
            return
        for tensor in net.state_dict().values():
            dense = tensor.contiguous()
            dist.broadcast(dense, 0)
            tensor.copy_(dense)

    def _meet(self, device: torch.device, patience: timedelta) -> None:
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        try:
            dist.init_process_group(
                "nccl" if on_gpu else "gloo",
                rank=self.rank,
                world_size=self.count,
                timeout=patience,
                device_id=device if on_gpu else None,
            )
        except ValueError as error:
            raise ConfigError(
                f"process {self.rank} of {self.count} cannot find the others: {error}",
                hint="start them with `torchrun --standalone --nproc-per-node N -m zdm_ml ...`,"
                " or unset WORLD_SIZE for a training in one process",
            ) from error


ALONE = Processes()


def _lost(error: RuntimeError) -> bool:
    """Tell whether an error is about the other processes; gloo's have no type of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _reason(error: RuntimeError) -> str:
    """Return an error's first sentence without the place in torch's source before it."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[\S+\] ", "", line).split(". ")[0]
