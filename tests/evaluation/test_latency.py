from pathlib import Path

import numpy as np
import pytest
import torch

from zdm_ml.evaluation.flops import flops
from zdm_ml.evaluation.latency import measure
from zdm_ml.models import zoo
from zdm_ml.models.net import LoadedNet, NetSpec, load_net, save_net
from zdm_ml.params import LatencyParams


def luna(folder: Path, size: int = 32, recipe: str = "reference") -> LoadedNet:
    torch.manual_seed(0)
    shape = ("luna", ("ok", "defect"), size, 0.5, 0.2)
    spec = NetSpec(*shape, "scratch", None, "full", "smoke", recipe, recipe == "modern")
    save_net(folder, zoo.build("luna", size, recipe=recipe), spec)
    return load_net(folder)


def test_measure_gives_times_arithmetic_and_size(tmp_path: Path) -> None:
    loaded = luna(tmp_path)
    threads = torch.get_num_threads()

    result = measure(loaded, np.zeros((40, 50), np.uint8), LatencyParams(1, 5, 1))

    assert 0 < result["p50_ms"] <= result["p99_ms"]
    assert result["parameters"] == sum(p.numel() for p in loaded.net.parameters())
    assert result["size_bytes"] <= (tmp_path / "weights.safetensors").stat().st_size
    assert result["size_bytes"] >= 4 * result["parameters"]
    assert (result["device"], result["threads"]) == ("cpu", 1)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    # torchvision's published figures at 224 px, two classes instead of 1000.
    [("alexnet", 0.71e9), ("resnet18", 1.81e9), ("vit_b_16", 17.56e9), ("swin_t", 4.49e9)],
)
def test_flops_are_twice_the_published_multiply_adds(name: str, multiply_adds: float) -> None:
    assert flops(name, 224, "reference") == pytest.approx(2 * multiply_adds, rel=0.02)


def test_flops_and_parameters_are_those_of_the_form_that_was_trained(tmp_path: Path) -> None:
    loaded = luna(tmp_path, recipe="modern")

    result = measure(loaded, np.zeros((40, 50), np.uint8), LatencyParams(0, 1, 1))

    assert result["parameters"] == 148_722
    assert result["flops"] == flops("luna", 32, "modern") != flops("luna", 32, "reference")


def test_four_quarter_turns_count_as_four_passes() -> None:
    """A 5x5 convolution of stride 2 on one channel, then 3x3 ones on ever smaller maps."""
    widths = [(16, 16, 16), (16, 32, 8), (32, 64, 4), (64, 64, 2)]
    blocks = sum(9 * (before + after) * after * side**2 for before, after, side in widths)
    once = 25 * 16 * 16**2 + blocks + 64 * 2

    assert flops("luna", 32, "modern") == 2 * 4 * once
