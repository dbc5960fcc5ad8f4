"""The training loop that ours is measured against: the usual one, as the reference work wrote it.

PIL images augmented by torchvision's transforms in loader workers, batch 16, fp32, eager, loss and
accuracy read after every step, the best epoch by validation loss kept. Nothing here is slowed
down on purpose: persistent workers, no gradient in validation, fused Adam as in ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from zdm_ml.params import AugmentParams, Recipe, TrainParams

WORKERS = 2

Transform = Callable[[Image.Image], torch.Tensor]
Sample = tuple[torch.Tensor, int]


@dataclass(frozen=True)
class ImageFile:
    """A JPEG and its target (1 = defect)."""

    path: Path
    target: int


@dataclass(frozen=True)
class Outcome:
    """Wall time in seconds, and the errors on the validation images at the best epoch."""

    seconds: float
    errors: int


class Castings(Dataset[Sample]):
    """Images opened anew for every epoch, as `ImageFolder` does."""

    def __init__(self, files: Sequence[ImageFile], transform: Transform) -> None:
        self.files = files
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> Sample:
        file = self.files[place]
        with Image.open(file.path) as image:
            return self.transform(image.convert("RGB")), file.target


def eval_transform(size: int, mean: float, std: float) -> Transform:
    """Return resizing to `size` pixels and normalisation, float32 [3, size, size]."""
    return v2.Compose([v2.Resize((size, size)), *_to_tensor(mean, std)])


def train_transform(size: int, augment: AugmentParams, mean: float, std: float) -> Transform:
    """Return the reference recipe's augmentation before normalisation."""
    shift = (augment.translate, augment.translate)
    return v2.Compose(
        [
            v2.Resize((size, size)),
            v2.RandomHorizontalFlip(augment.horizontal_flip),
            v2.RandomVerticalFlip(augment.vertical_flip),
            v2.RandomAffine(augment.degrees, shift, tuple(augment.scale)),
            v2.ColorJitter(augment.jitter, augment.jitter),
            *_to_tensor(mean, std),
        ]
    )


def _to_tensor(mean: float, std: float) -> list[nn.Module]:
    return [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([mean] * 3, [std] * 3),
    ]


def train(
    net: nn.Module,
    train_files: Sequence[ImageFile],
    val_files: Sequence[ImageFile],
    size: int,
    *,
    recipe: Recipe,
    params: TrainParams,
    seed: int,
    device: torch.device,
) -> Outcome:
    """Train `net` from files to the best epoch; what is timed includes decoding and validation."""
    torch.manual_seed(seed)
    started = time.perf_counter()
    augmented = train_transform(size, params.augment, params.mean, params.std)
    plain = eval_transform(size, params.mean, params.std)
    train_loader = _loader(Castings(train_files, augmented), params.batch_size, shuffle=True)
    val_loader = _loader(Castings(val_files, plain), params.batch_size, shuffle=False)
    net.to(device)
    optimizer = torch.optim.Adam(
        net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
    )
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, recipe.gamma)
    best_loss, best_errors = float("inf"), len(val_files)
    for _ in range(recipe.epochs):
        train_one_epoch(net, train_loader, optimizer, device)
        loss, errors = validate(net, val_loader, device)
        if loss < best_loss:
            best_loss, best_errors = loss, errors
        scheduler.step()
    return Outcome(time.perf_counter() - started, best_errors)


def train_one_epoch(
    net: nn.Module,
    loader: DataLoader[Sample],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> tuple[float, float]:
    """Return the mean loss and accuracy, summed up step by step."""
    net.train()
    total = right = seen = 0.0
    for images, targets in loader:
        images, targets = images.to(device), targets.to(device)  # noqa: PLW2901 (the usual loop)
        optimizer.zero_grad()
        logits = net(images)
        loss = functional.cross_entropy(logits, targets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(images)
        right += (logits.argmax(1) == targets).sum().item()
        seen += len(images)
    return total / seen, right / seen


@torch.no_grad()
def validate(net: nn.Module, loader: DataLoader[Sample], device: torch.device) -> tuple[float, int]:
    """Return the mean loss and the number of wrong answers."""
    net.eval()
    total, wrong, seen = 0.0, 0, 0
    for images, targets in loader:
        logits = net(images.to(device))
        total += functional.cross_entropy(logits, targets.to(device), reduction="sum").item()
        wrong += int((logits.argmax(1).cpu() != targets).sum())
        seen += len(images)
    return total / seen, wrong


def _loader(dataset: Castings, batch_size: int, *, shuffle: bool) -> DataLoader[Sample]:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=WORKERS,
        persistent_workers=True,
        drop_last=shuffle and len(dataset) % batch_size == 1,
    )
