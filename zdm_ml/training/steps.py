"""One pass over the images: with gradient to learn, without to judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from zdm_ml.errors import TrainingError
from zdm_ml.models.scoring import preprocess, to_input
from zdm_ml.training.batches import Inputs
from zdm_ml.training.device import Precision, autocast
from zdm_ml.training.micro_batches import MicroBatches, no_room
from zdm_ml.training.parallel import ALONE, Processes
from zdm_ml.training.sides import Images, Targets

OnStep = Callable[[int, int, int], None]

VALIDATION_BATCH = 64
SECONDS_BETWEEN_TICKS = 0.2


class Judged(Protocol):
    """What is validated on: images, or what a frozen trunk made of them."""

    @property
    def targets(self) -> Targets: ...

    def __len__(self) -> int: ...

    def pictures(self, chosen: slice) -> Any:
        """Return what the classifier takes of the chosen images."""


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
    standardise: bool

    def to_device(self, array: npt.NDArray[np.generic] | torch.Tensor) -> torch.Tensor:
        """Copy an array to the net's device without making the CPU wait; a tensor is there."""
        if isinstance(array, torch.Tensor):
            return array
        tensor = torch.from_numpy(array)
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def logits_of_images(self, images: Images | torch.Tensor) -> torch.Tensor:
        """Return float32 logits [B, 2] of grey uint8 images [B, H, W]."""
        return self._forward(preprocess(self.to_device(images).unsqueeze(1), self))

    def logits(self, inputs: Inputs | torch.Tensor) -> torch.Tensor:
        """Return float32 logits [B, 2] of normalised grey float32 images [B, S, S]."""
        grey = self.to_device(inputs).unsqueeze(1)
        return self._forward(to_input(grey, standardise=self.standardise))

    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
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
    batches: Iterator[tuple[Inputs | torch.Tensor, Targets | torch.Tensor]],
    update: Callable[[], None],
    ticker: Ticker,
    label_smoothing: float = 0.0,
    *,
    micro: MicroBatches,
    processes: Processes = ALONE,
    sizes: Iterable[int] | None = None,
) -> float:
    """Return the mean training loss; a loss that is not finite raises `TrainingError`.

    `update()` changes the weights by the gradient that they hold then. Where `processes` share
    batches, `sizes` are those of the whole ones. The loss stays on the device until the end, so
    that a GPU never waits for the CPU. On a CPU reading it is free, so there a broken training
    stops within the epoch.
    """
    total = torch.zeros((), dtype=torch.float64, device=classifier.device)
    done = 0
    whole = iter(sizes) if sizes is not None else None
    for inputs, targets in batches:
        own = len(targets)
        images = next(whole) if whole else own
        weight = processes.weight(own, images)
        learn = partial(_learn, classifier, inputs, targets, label_smoothing, weight)
        loss = micro.run(classifier.net, own, learn)
        _step(classifier.name, update, own)
        total += loss * (weight * images / processes.count)
        done += images
        if ticker.due(done) and classifier.device.type == "cpu":
            finite_loss(classifier.name, ticker.epoch, "training", float(total))
    mean = float(processes.total(total)) / done
    return finite_loss(classifier.name, ticker.epoch, "training", mean)


def _learn(
    classifier: Classifier,
    inputs: Inputs | torch.Tensor,
    targets: Targets | torch.Tensor,
    label_smoothing: float,
    weight: float,
    parts: Sequence[slice],
) -> torch.Tensor:
    """Leave `weight` times the gradient of the batch's mean loss in the net; return that loss."""
    classifier.net.zero_grad(set_to_none=True)
    means = []
    for part in parts:
        truth = classifier.to_device(targets[part])
        logits = classifier.logits(inputs[part])
        mean = functional.cross_entropy(logits, truth, label_smoothing=label_smoothing)
        counts = weight * len(truth) / len(targets)
        # torch leaves `backward` untyped.
        (mean if counts == 1 else mean * counts).backward()  # type: ignore[no-untyped-call]
        means.append(mean.detach() if len(parts) == 1 else mean.detach() * len(truth))
    return means[0] if len(parts) == 1 else torch.stack(means).sum() / len(targets)


def _step(name: str, update: Callable[[], None], images: int) -> None:
    try:
        update()
    except torch.OutOfMemoryError as error:
        # The optimizer's own state does not fit, half of it is there: nothing to try again.
        raise no_room(name, images) from error


@torch.inference_mode()
def validate(
    classifier: Classifier, side: Judged, epoch: int, micro: MicroBatches | None = None
) -> tuple[float, float]:
    """Return the mean loss and the share of right answers (at 0.5) in eval mode."""
    classifier.net.eval()
    micro = micro or MicroBatches(classifier.name)
    loss = torch.zeros((), dtype=torch.float64, device=classifier.device)
    right = torch.zeros((), dtype=torch.int64, device=classifier.device)
    for start in range(0, len(side), VALIDATION_BATCH):
        part = slice(start, start + VALIDATION_BATCH)
        truth = classifier.to_device(side.targets[part])
        judge = partial(_judge, classifier, side.pictures(part))
        logits = micro.run(classifier.net, len(truth), judge)
        loss += functional.cross_entropy(logits, truth, reduction="sum")
        right += (logits.argmax(1) == truth).sum()
    mean = finite_loss(classifier.name, epoch, "validation", float(loss) / len(side))
    return mean, int(right) / len(side)


def _judge(
    classifier: Classifier, images: Images | torch.Tensor, parts: Sequence[slice]
) -> torch.Tensor:
    logits = [classifier.logits_of_images(images[part]) for part in parts]
    return logits[0] if len(logits) == 1 else torch.cat(logits)


def finite_loss(name: str, epoch: int, kind: str, loss: float) -> float:
    """Return `loss`, or raise `TrainingError` when it is not finite."""
    if not np.isfinite(loss):
        raise TrainingError(
            f"{name}: the {kind} loss became {loss} in epoch {epoch}",
            hint="lower the model's learning_rate in params.yaml; with precision bf16, try fp32",
        )
    return loss
