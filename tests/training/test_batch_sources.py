from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from recipes import PLAIN, RICH
from torch import nn

from zdm_ml.models import zoo
from zdm_ml.models.transfer import apply_transfer
from zdm_ml.training import sources
from zdm_ml.training.frozen import FeatureCache
from zdm_ml.training.loop import TrainResult, train
from zdm_ml.training.sides import Side, make_side

SIZE = 32


def pictures(count: int, seed: int) -> Side:
    """Smooth noise: where to interpolate between noisy pixels is a matter of rounding."""
    coarse = np.random.default_rng(seed).integers(40, 216, (count, 4, 4), dtype=np.uint8)
    images = np.stack([cv2.resize(image, (SIZE, SIZE)) for image in coarse])
    return make_side(images, (np.arange(count) % 2).astype(np.int64))


def frozen_net(transfer: str) -> nn.Module:
    torch.manual_seed(1)
    net = zoo.build("resnet18", SIZE)
    apply_transfer("resnet18", net, transfer)
    return net


def run(net: nn.Module, cache: FeatureCache | None, name: str = "resnet18") -> TrainResult:
    recipe = replace(PLAIN, input_size=SIZE, epochs=2)
    sides = pictures(10, 1), pictures(4, 2)
    device = torch.device("cpu")
    return train(
        name, net, *sides, recipe=recipe, precision="fp32", seed=3, device=device, features=cache
    )


@pytest.mark.parametrize("transfer", ["feature_extraction", "partial"])
def test_a_frozen_net_learns_from_cached_features_and_keeps_its_trunk(
    tmp_path: Path, transfer: str
) -> None:
    net = frozen_net(transfer)
    before = {key: value.clone() for key, value in net.state_dict().items()}

    run(net, FeatureCache(tmp_path, transfer, views=2))

    changed = {k for k, v in net.state_dict().items() if not torch.equal(before[k], v)}
    learnt = ("fc.",) if transfer == "feature_extraction" else ("fc.", "layer4.")
    assert changed
    assert all(key.startswith(learnt) for key in changed)
    assert list(tmp_path.rglob("*.npy"))


def test_a_second_training_reuses_the_features(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "feature_extraction", views=2)
    run(frozen_net("feature_extraction"), cache)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}

    run(frozen_net("feature_extraction"), cache)

    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == files


def test_nothing_is_cached_where_nothing_is_frozen(tmp_path: Path) -> None:
    run(frozen_net("full"), FeatureCache(tmp_path, "full", views=2))

    assert not list(tmp_path.iterdir())


def test_batches_made_on_the_device_train_as_those_of_the_cpu_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Mixed pictures differ by a grey level here and there: a percent of loss after a few steps.
    unmixed = replace(RICH.augment, mix=0.0)
    recipe = replace(RICH, input_size=SIZE, epochs=2, augment=unmixed)
    results = []
    for on_device in (False, True):
        monkeypatch.setattr(sources, "augments_on", lambda device, on=on_device: on)
        torch.manual_seed(1)
        net = zoo.build("luna", SIZE, recipe="modern")
        side = pictures(40, 1)
        held_out = side.part(np.arange(30, 40))
        results.append(
            train(
                "luna",
                net,
                side.part(np.arange(30)),
                held_out,
                recipe=recipe,
                precision="fp32",
                seed=3,
                device=torch.device("cpu"),
            )
        )

    losses = [[record.train_loss for record in result.history] for result in results]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
