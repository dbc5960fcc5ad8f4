"""Training behind a frozen trunk: it looks at a few views of each image once, the rest learns."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from zdm_ml.models.trunk import SplitNet, UncuttableError, split_net
from zdm_ml.recipes import Recipe
from zdm_ml.training.batches import Feed, Inputs
from zdm_ml.training.device import autocast
from zdm_ml.training.features import (
    FeatureFeed,
    FeatureSource,
    View,
    cached_features,
    side_digest,
)
from zdm_ml.training.sides import Images, Indices, Side, Targets
from zdm_ml.training.steps import Classifier, OnStep

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureCache:
    """Where features are kept, how the net is frozen, and at most how many views are made."""

    folder: Path
    transfer: str
    views: int


@dataclass(frozen=True)
class TailClassifier(Classifier):
    """The trained part of a net where it runs: it takes features, not pictures."""

    def logits_of_images(self, images: Images | torch.Tensor) -> torch.Tensor:
        """Return float32 logits [B, 2] of features [B, ...]."""
        return self.logits(images)

    def logits(self, inputs: Inputs | Images | torch.Tensor) -> torch.Tensor:
        """Return float32 logits [B, 2] of features [B, ...]."""
        with autocast(self.device, self.precision):
            logits: torch.Tensor = self.net(self.to_device(inputs))
        return logits.float()


@dataclass(frozen=True)
class FeatureSide:
    """A side whose pictures are features."""

    view: View
    targets: Targets

    def __len__(self) -> int:
        return len(self.view)

    def pictures(self, chosen: Indices | slice) -> Inputs:
        """Return float32 features [B, ...] of the chosen images."""
        return self.view.batch(np.arange(len(self))[chosen])[0]


@dataclass(frozen=True)
class Halved:
    """What trains in the place of a net on pictures."""

    classifier: TailClassifier
    feed: FeatureFeed
    judge: FeatureSide | None


def halve(
    classifier: Classifier,
    feed: Feed,
    judge: Side | None,
    recipe: Recipe,
    cache: FeatureCache,
    on_step: OnStep = lambda done, total, epoch: None,
) -> Halved | None:
    """Return the tail of a frozen net with its features for every epoch, or None without gain.

    There is none where nothing is frozen, where the net cannot be cut, or where the epochs show
    fewer images than one view has. Views are so many that making them costs half of the forward
    passes that they save, at most `cache.views`. `on_step(done, total, 0)` counts pictures.
    """
    if cache.transfer == "full" or recipe.epochs * feed.count < len(feed.side):
        return None
    try:
        split = split_net(classifier.name, classifier.net, cache.transfer)
    except UncuttableError as error:
        log.info("%s: trains without cached features: %s", classifier.name, error)
        return None
    views = max(1, min(cache.views, recipe.epochs * feed.count // (2 * len(feed.side))))
    log.info("%s: features of %d views of %d images", classifier.name, views, len(feed.side))
    facts = {
        "side": side_digest(feed.side),
        "augment": asdict(recipe.augment),
        "seed": feed.seed,
    }

    def augmented(view: int, places: Indices) -> tuple[Inputs, Targets]:
        return feed.shown(view, places, places)

    shown = (len(feed.side), facts, classifier.device, classifier.precision)
    learnt = cached_features(
        FeatureSource(split, classifier, augmented, *shown),
        views,
        cache.folder,
        lambda done, total: on_step(done, total, 0),
    )
    tail = TailClassifier(**{**vars(classifier), "net": split.tail})
    judged = None if judge is None else _seen_once(split, classifier, judge, cache.folder)
    return Halved(tail, FeatureFeed(learnt, feed.order, feed.seed), judged)


def _seen_once(split: SplitNet, classifier: Classifier, side: Side, folder: Path) -> FeatureSide:
    """Return a side's features without augmentation."""
    source = FeatureSource(
        split,
        classifier,
        lambda view, places: (side.pictures(places), side.targets[places]),
        len(side),
        {"side": side_digest(side)},
        classifier.device,
        classifier.precision,
    )
    return FeatureSide(cached_features(source, 1, folder)[0], side.targets)
