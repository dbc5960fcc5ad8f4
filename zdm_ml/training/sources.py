"""Where batches come from: pictures augmented on the CPU or a GPU, or a frozen trunk's features."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from zdm_ml.data.augment import Augmenter
from zdm_ml.data.pasting import draw_patches
from zdm_ml.recipes import Recipe
from zdm_ml.training.batches import Feed, castings_evenly
from zdm_ml.training.device_feed import DeviceAugmenter, DeviceFeed
from zdm_ml.training.device_images import DeviceImages
from zdm_ml.training.features import FeatureFeed
from zdm_ml.training.frozen import FeatureCache, FeatureSide, halve
from zdm_ml.training.parallel import Processes
from zdm_ml.training.sides import Indices, Side, Targets
from zdm_ml.training.steps import Classifier, OnStep

log = logging.getLogger(__name__)

CURVE_IMAGES = 256


@dataclass(frozen=True)
class Curve:
    """Validation loss and accuracy per epoch, found by other nets: for one with none held out."""

    losses: Sequence[float]
    accuracies: Sequence[float]


@dataclass(frozen=True)
class DeviceSide:
    """A side whose images are on the device that trains."""

    images: DeviceImages
    side: Side

    def __len__(self) -> int:
        return len(self.side)

    @property
    def targets(self) -> Targets:
        """The side's targets, int64 [N]."""
        return self.side.targets

    def pictures(self, chosen: Indices | slice) -> torch.Tensor:
        """Return the chosen of the side's images, uint8 [B, S, S], on the device."""
        return self.images.pictures(self.side.places[chosen])


@dataclass(frozen=True)
class Source:
    """What is trained on which batches, and what each epoch is judged by."""

    classifier: Classifier
    feed: Feed | DeviceFeed | FeatureFeed
    judge: Side | DeviceSide | FeatureSide | Curve


@contextmanager
def open_source(
    classifier: Classifier,
    learn: Side,
    judge: Side | Curve,
    recipe: Recipe,
    seed: int,
    features: FeatureCache | None,
    processes: Processes,
    on_step: OnStep,
) -> Iterator[Source]:
    """Yield the batches of `learn` and what judges: on a GPU both where the images are.

    A net whose trunk is frozen, trained by one process, gets cached features where that gains.
    Where `recipe` keeps the last epoch, a few images of every casting are enough for a curve.
    `on_step(done, total, 0)` counts the pictures whose features are made.
    """
    if recipe.keep == "last" and isinstance(judge, Side):
        judge = _sample(judge, seed)
    augment = recipe.augment
    patches = draw_patches(learn.size) if augment.paste else ()
    epochs = (learn, recipe.sampling, recipe.images_per_epoch, recipe.batch_size, seed)
    # After pasting, half of what the net sees is good.
    good, share = 0.5 / (1 - augment.paste), (processes.rank, processes.count)
    if features is not None and features.transfer != "full" and processes.alone:
        with Augmenter(augment, seed, patches, mean=recipe.mean, std=recipe.std) as augmenter:
            feed = Feed(*epochs, augmenter, good=good, share=share)
            halved = _halved(classifier, feed, judge, recipe, features, on_step)
            if halved is not None:
                yield halved
                return
    if augments_on(classifier.device):
        images = DeviceImages(learn.images, classifier.device)
        there = DeviceAugmenter(augment, seed, images, patches, mean=recipe.mean, std=recipe.std)
        judged: Side | DeviceSide | Curve = judge
        if isinstance(judge, Side) and judge.images is learn.images:
            judged = DeviceSide(images, judge)
        yield Source(classifier, DeviceFeed(*epochs, there, good=good, share=share), judged)
        return
    with Augmenter(augment, seed, patches, mean=recipe.mean, std=recipe.std) as augmenter:
        yield Source(classifier, Feed(*epochs, augmenter, good=good, share=share), judge)


def augments_on(device: torch.device) -> bool:
    """Tell whether whole batches are augmented on `device`: a CPU is faster image by image."""
    return device.type == "cuda"


def _halved(
    classifier: Classifier,
    feed: Feed,
    judge: Side | Curve,
    recipe: Recipe,
    features: FeatureCache,
    on_step: OnStep,
) -> Source | None:
    held_out = judge if isinstance(judge, Side) else None
    halved = halve(classifier, feed, held_out, recipe, features, on_step)
    if halved is None:
        return None
    return Source(halved.classifier, halved.feed, halved.judge or judge)


def _sample(judge: Side, seed: int) -> Side:
    if len(judge) <= CURVE_IMAGES:
        return judge
    return judge.part(castings_evenly(judge, CURVE_IMAGES, seed, 0))
