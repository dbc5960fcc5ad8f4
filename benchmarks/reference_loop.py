"""The training loop that ours is measured against: the usual one, as the reference work wrote it.

PIL images augmented by torchvision's transforms in 2 loader workers, batch 16, fp32, eager, loss
and accuracy read after every step, each epoch validated, a copy of the best one's weights kept. It
has the 2 workers of the reference work on every machine, however many cores there are: beside a GPU
more of them would feed it faster. Nothing else is slowed down: persistent workers, pinned memory
for a GPU, no gradient in validation, fused Adam as in ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from zdm_ml.models.transfer import train_mode
from zdm_ml.recipes import Recipe

WORKERS = 2
"""Of a loader, as in the reference work; notes of whole trainings say so."""

Transform = Callable[[Image.Image], torch.Tensor]
Sample = tuple[torch.Tensor, int]


@dataclass(frozen=True)
class ImageFile:
    """A JPEG and its target (1 = defect)."""

    path: Path
    target: int


@dataclass(frozen=True)
class Epoch:
    """An epoch's end in seconds since the start, its validation loss and errors."""

    ended: float
    loss: float
    errors: int


@dataclass(frozen=True)
class Outcome:
    """Wall time in seconds, from files on, and what each epoch came to."""

    seconds: float
    epochs: list[Epoch]

    @property
    def kept(self) -> Epoch:
        """The epoch whose weights the net has at the end."""
        return lowest(self.epochs)

    @property
    def fewest(self) -> Epoch:
        """The first epoch with the fewest errors."""
        return min(self.epochs, key=lambda epoch: epoch.errors)


def lowest(epochs: Sequence[Epoch]) -> Epoch:
    """Return the first epoch with the lowest validation loss."""
    return min(epochs, key=lambda epoch: epoch.loss)


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


def eval_transform(recipe: Recipe) -> Transform:
    """Return resizing and normalisation, to float32 [3, S, S]."""
    return v2.Compose([v2.Resize((recipe.input_size, recipe.input_size)), *_to_tensor(recipe)])


def train_transform(recipe: Recipe) -> Transform:
    """Return the reference recipe's augmentation before normalisation."""
    size, augment = recipe.input_size, recipe.augment
    return v2.Compose(
        [
            v2.Resize((size, size)),
            v2.RandomHorizontalFlip(augment.horizontal_flip),
            v2.RandomVerticalFlip(augment.vertical_flip),
            v2.RandomAffine(augment.degrees, (augment.translate,) * 2, tuple(augment.scale)),
            v2.ColorJitter(augment.jitter, augment.jitter),
            *_to_tensor(recipe),
        ]
    )


def _to_tensor(recipe: Recipe) -> list[nn.Module]:
    return [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([recipe.mean] * 3, [recipe.std] * 3),
    ]


def train(
    net: nn.Module,
    train_files: Sequence[ImageFile],
    val_files: Sequence[ImageFile],
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
) -> Outcome:
    """Train what `net` has unfrozen; leave the weights of the lowest validation loss in it.

    What is timed includes decoding, validation and the copies of weights.
    """
    torch.manual_seed(seed)
    started = time.perf_counter()
    pinned = device.type == "cuda"
    train_loader = _loader(
        Castings(train_files, train_transform(recipe)), recipe.batch_size, pinned, shuffle=True
    )
    val_loader = _loader(Castings(val_files, eval_transform(recipe)), recipe.batch_size, pinned)
    net.to(device)
    optimizer = torch.optim.Adam(
        [parameter for parameter in net.parameters() if parameter.requires_grad],
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, recipe.gamma)
    epochs, best = list[Epoch](), net.state_dict()
    for _ in range(recipe.epochs):
        train_one_epoch(net, train_loader, optimizer, device)
        loss, errors = validate(net, val_loader, device)
        epochs.append(Epoch(time.perf_counter() - started, loss, errors))
        if epochs[-1] is lowest(epochs):
            best = deepcopy(net.state_dict())
        scheduler.step()
    net.load_state_dict(best)
    return Outcome(time.perf_counter() - started, epochs)


def train_one_epoch(
    net: nn.Module,
    loader: DataLoader[Sample],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> tuple[float, float]:
    """Return the mean loss and accuracy, summed up step by step."""
    train_mode(net)  # net.train(), but for what is frozen
    total = right = seen = 0.0
    for batch in loader:
        images, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
        optimizer.zero_grad()
        logits = net(images)
        loss = functional.cross_entropy(logits, targets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(images)
        right += (logits.argmax(1) == targets).sum().item()
        seen += len(images)
    return total / seen, right / seen


def score(
    net: nn.Module, files: Sequence[ImageFile], recipe: Recipe, device: torch.device
) -> tuple[float, int]:
    """Return the mean loss and the number of wrong answers on images, read from their files."""
    loader = _loader(
        Castings(files, eval_transform(recipe)), recipe.batch_size, device.type == "cuda"
    )
    return validate(net, loader, device)


@torch.no_grad()
def validate(net: nn.Module, loader: DataLoader[Sample], device: torch.device) -> tuple[float, int]:
    """Return the mean loss and the number of wrong answers."""
    net.eval()
    total, wrong, seen = 0.0, 0, 0
    for images, targets in loader:
        logits = net(images.to(device, non_blocking=True)).cpu()
        total += functional.cross_entropy(logits, targets, reduction="sum").item()
        wrong += int((logits.argmax(1) != targets).sum())
        seen += len(images)
    return total / seen, wrong


def _loader(
    dataset: Castings, batch_size: int, pinned: bool, *, shuffle: bool = False
) -> DataLoader[Sample]:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=pinned,
        drop_last=shuffle and len(dataset) % batch_size == 1,
    )
