"""One pass over the images: with gradient to learn, without to judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from zdm_ml.errors import TrainingError
from zdm_ml.models.net import preprocess
from zdm_ml.training.device import Precision, autocast

Images = npt.NDArray[np.uint8]
Targets = npt.NDArray[np.int64]
OnStep = Callable[[int, int, int], None]

VALIDATION_BATCH = 64
SECONDS_BETWEEN_TICKS = 0.2


@dataclass(frozen=True)
class Classifier:
    """A net where it runs: device, precision and the preprocessing of its input."""

    name: str
    net: nn.Module
    device: torch.device
    precision: Precision
    input_size: int
    mean: float
    std: float

    def to_device(self, array: npt.NDArray[np.generic]) -> torch.Tensor:
        """Copy an array to the net's device without making the CPU wait for a GPU."""
        tensor = torch.from_numpy(array)
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def logits(self, images: Images) -> torch.Tensor:
        """Return float32 logits [B, 2] of grey uint8 images [B, S, S]."""
        pixels = preprocess(self.to_device(images).unsqueeze(1), self)
        if self.device.type == "cuda":
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.precision):
            logits: torch.Tensor = self.net(pixels)
        return logits.float()


@dataclass
class Ticker:
    """Passes progress on a few times per second and at the end, and looks at the loss then."""

    on_step: OnStep
    total: int
    epoch: int
    _last: float = field(default_factory=time.monotonic)

    def due(self, done: int) -> bool:
        """Report `done` of `total` images if it is time to; return whether it was."""
        if done < self.total and time.monotonic() - self._last < SECONDS_BETWEEN_TICKS:
            return False
        self._last = time.monotonic()
        self.on_step(done, self.total, self.epoch)
        return True


def train_one_epoch(
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[tuple[Images, Targets]],
    ticker: Ticker,
) -> float:
    """Return the mean training loss; a loss that is not finite raises `TrainingError`.

    The loss stays on the device until the end, so that a GPU never waits for the CPU. On a CPU
    reading it is free, so there a broken training stops within the epoch.
    """
    total = torch.zeros((), dtype=torch.float64, device=classifier.device)
    done = 0
    for images, targets in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(
            classifier.logits(images), classifier.to_device(targets), reduction="mean"
        )
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        total += loss.detach() * len(images)
        done += len(images)
        if ticker.due(done) and classifier.device.type == "cpu":
            finite_loss(classifier.name, ticker.epoch, "training", float(total))
    return finite_loss(classifier.name, ticker.epoch, "training", float(total) / done)


@torch.inference_mode()
def validate(
    classifier: Classifier, images: Images, targets: Targets, epoch: int
) -> tuple[float, float]:
    """Return the mean loss and the share of right answers (at 0.5) in eval mode."""
    classifier.net.eval()
    loss = torch.zeros((), dtype=torch.float64, device=classifier.device)
    right = torch.zeros((), dtype=torch.int64, device=classifier.device)
    for start in range(0, len(images), VALIDATION_BATCH):
        part = slice(start, start + VALIDATION_BATCH)
        logits, truth = classifier.logits(images[part]), classifier.to_device(targets[part])
        loss += functional.cross_entropy(logits, truth, reduction="sum")
        right += (logits.argmax(1) == truth).sum()
    mean = finite_loss(classifier.name, epoch, "validation", float(loss) / len(images))
    return mean, int(right) / len(images)


def finite_loss(name: str, epoch: int, kind: str, loss: float) -> float:
    """Return `loss`, or raise `TrainingError` when it is not finite."""
    if not np.isfinite(loss):
        raise TrainingError(
            f"{name}: the {kind} loss became {loss} in epoch {epoch}",
            hint="lower the model's learning_rate in params.yaml; with precision bf16, try fp32",
        )
    return loss
