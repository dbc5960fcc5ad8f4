"""Features of a frozen trunk: computed once per view, kept on disk, trained on every epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zdm_ml.files import sha256_json
from zdm_ml.models.scoring import InputSpec, preprocess, to_input
from zdm_ml.models.trunk import SplitNet
from zdm_ml.training.batches import Inputs
from zdm_ml.training.device import Precision, autocast
from zdm_ml.training.feature_shelf import Features, Shelf, alone, prune
from zdm_ml.training.micro_batches import MicroBatches
from zdm_ml.training.sides import Images, Indices, Side, Targets

Pictures = Callable[[int, Indices], tuple[Images | Inputs, Targets]]
"""From a view's number and places [B] to grey [B, S, S], uint8 or normalised, and targets [B]."""

_BATCH = 32  # images per forward pass: more are no faster on a CPU
# Images per file: what has to be in memory at once, and what a killed run computes again.
_PIECE = 256
# Part of every key; another number when the same inputs give other features.
_VERSION = 1


@dataclass(frozen=True)
class View:
    """Every image of a side once: features, and targets, in pieces of `_PIECE` images."""

    pieces: Sequence[tuple[Features, Targets]]

    def __len__(self) -> int:
        return sum(len(targets) for _, targets in self.pieces)

    def batch(self, chosen: Indices) -> tuple[npt.NDArray[np.float32], Targets]:
        """Return float32 features [B, ...] and int64 targets [B] of the chosen images."""
        return _batch([(self, image) for image in chosen])


@dataclass(frozen=True)
class FeatureSource:
    """All that features depend on: a trunk, the preprocessing before it, `count` images.

    `pictures` shows them. `facts` decide what it shows: the side's digest, the augmentation's
    parameters, the seed; anything that JSON takes.
    """

    net: SplitNet
    spec: InputSpec
    pictures: Pictures
    count: int
    facts: Mapping[str, Any]
    device: torch.device
    precision: Precision = "fp32"

    def key(self) -> str:
        """Return what is equal for equal features of equal pictures, as a folder's name."""
        spec = self.spec
        content = {
            "version": [_VERSION, _PIECE],
            "net": [self.net.name, self.net.strategy, self.net.trunk_digest()],
            "input": [spec.input_size, spec.mean, spec.std, spec.standardise],
            "pictures": [self.count, dict(self.facts)],
            "computed": [self.device.type, self.precision],
        }
        return f"{self.net.name}-{sha256_json(content)[:32]}"

    @torch.inference_mode()
    def features(self, pictures: Images | Inputs) -> npt.NDArray[np.float32]:
        """Return float32 [B, ...] of pictures [B, S, S], from the trunk in eval mode."""
        grey = torch.from_numpy(pictures).to(self.device).unsqueeze(1)
        if grey.dtype == torch.uint8:
            pixels = preprocess(grey, self.spec)
        else:
            pixels = to_input(grey, standardise=self.spec.standardise)
        with autocast(self.device, self.precision):
            features: npt.NDArray[np.float32] = self.net.features(pixels).cpu().numpy()
        return features


def side_digest(side: Side) -> str:
    """Return the hex sha256 of a side's images, targets and castings, in order."""
    total = hashlib.sha256(side.targets.tobytes() + side.castings.tobytes())
    for start in range(0, len(side), _PIECE):
        total.update(side.pictures(slice(start, start + _PIECE)).tobytes())
    return f"{total.hexdigest()}-{side.size}"


def cached_features(
    source: FeatureSource,
    views: int,
    folder: Path,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> list[View]:
    """Return views 0 to `views` - 1, mapped from files in `folder` that are made if need be.

    Each file is whole or not there, so a killed run goes on where it was, and more views add to
    those there. Processes that want the same features wait for the one that computes them. A
    damaged file is made again with a warning; on a disk that is full or cannot be written the
    features stay in memory, with a warning. They are float16, or float32 where they are too
    large or too small for that. `on_step(done, total)` counts pictures. What is longest unused in
    `folder` is dropped. Memory that runs out halves how many pictures the trunk sees at once.
    """
    shelf = Shelf(folder / source.key())
    found = []
    micro = MicroBatches(source.net.name)
    with alone(shelf.folder):
        for view in range(views):
            pieces = []
            for start in range(0, source.count, _PIECE):
                places = np.arange(start, min(start + _PIECE, source.count))
                pieces.append(_piece(shelf, source, view, places, micro))
                shelf.mark()
                on_step(view * source.count + int(places[-1]) + 1, views * source.count)
            found.append(View(pieces))
    prune(folder)
    return found


@dataclass(frozen=True)
class FeatureFeed:
    """Views as batches, epoch by epoch, in the place of a `Feed` of the same side.

    `order(epoch)` gives the batches as indices into the side: that feed's. An image starts at a
    view drawn by `seed` and goes on by one each epoch, and whenever an epoch shows it again. So
    epochs mix all views, and V epochs that show every image once show each in every view.
    """

    views: Sequence[View]
    order: Callable[[int], list[Indices]]
    seed: int

    @property
    def count(self) -> int:
        """How many images an epoch shows."""
        return sum(map(len, self.order(1)))

    def batches(self, epoch: int) -> Iterator[tuple[npt.NDArray[np.float32], Targets]]:
        """Yield float32 features [B, ...] and targets of the epoch."""
        images = len(self.views[0])
        following = epoch + np.random.default_rng((self.seed, images)).permutation(images)
        for chosen in self.order(epoch):
            shown = []
            for image in chosen:
                shown.append((self.views[following[image] % len(self.views)], image))
                following[image] += 1
            yield _batch(shown)


def _piece(
    shelf: Shelf, source: FeatureSource, view: int, places: Indices, micro: MicroBatches
) -> tuple[Features, Targets]:
    # Facts may miss a change in the code that makes pictures; a sample of them does not.
    pictures, targets = source.pictures(view, places[:4])
    sample = hashlib.sha256(pictures.tobytes() + targets.tobytes()).hexdigest()[:16]
    compute = partial(_compute, source, view, places, micro)
    return shelf.piece(f"{view}-{places[0]}-{sample}", compute)


def _compute(
    source: FeatureSource, view: int, places: Indices, micro: MicroBatches
) -> tuple[Features, Targets]:
    features, targets = [], []
    for start in range(0, len(places), _BATCH):
        pictures, truth = source.pictures(view, places[start : start + _BATCH])
        of_parts = partial(_of_parts, source, pictures)
        features.append(_narrow(micro.run(source.net.trunk, len(pictures), of_parts)))
        targets.append(truth)
    return np.concatenate(features), np.concatenate(targets)


def _of_parts(
    source: FeatureSource, pictures: Images | Inputs, parts: Sequence[slice]
) -> npt.NDArray[np.float32]:
    return np.concatenate([source.features(pictures[part]) for part in parts])


def _narrow(features: npt.NDArray[np.float32]) -> Features:
    # bfloat16 is as small, and the logits of the eight nets end 6 to 10 times further off.
    fits = 2**-8 <= np.abs(features).max() <= np.finfo(np.float16).max
    return features.astype(np.float16) if fits else features


def _batch(shown: Sequence[tuple[View, int]]) -> tuple[npt.NDArray[np.float32], Targets]:
    rows = [(*view.pieces[image // _PIECE], image % _PIECE) for view, image in shown]
    features = np.stack([features[row] for features, _, row in rows], dtype=np.float32)
    return features, np.array([targets[row] for _, targets, row in rows])
