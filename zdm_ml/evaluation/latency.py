"""What one decision costs: time for one image on this device, arithmetic and size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from zdm_ml.evaluation.flops import flops
from zdm_ml.models.net import LoadedNet
from zdm_ml.params import LatencyParams


def measure(
    loaded: LoadedNet, image: npt.NDArray[np.uint8], params: LatencyParams
) -> dict[str, Any]:
    """Time `loaded` on one decoded image [H, W], preprocessing included, one image at a time.

    Returns p50_ms, p99_ms, `flops` (a multiply-add counts as two, as in torch's counter),
    `parameters`, `size_bytes` (of all weights), `device` and `threads`.
    """
    with _threads(params.threads):
        for _ in range(params.warmup):
            loaded.scores([image])
        seconds = [_seconds(loaded, image) for _ in range(params.repeats)]
    state = loaded.net.state_dict().values()
    return {
        "p50_ms": float(np.percentile(seconds, 50)) * 1e3,
        "p99_ms": float(np.percentile(seconds, 99)) * 1e3,
        "flops": flops(loaded.spec.model_name, loaded.spec.input_size, loaded.spec.recipe),
        "parameters": sum(parameter.numel() for parameter in loaded.net.parameters()),
        "size_bytes": sum(tensor.numel() * tensor.element_size() for tensor in state),
        "device": _device_name(loaded.device),
        "threads": params.threads,
    }


def _seconds(loaded: LoadedNet, image: npt.NDArray[np.uint8]) -> float:
    started = time.perf_counter()
    # Scores come back as a numpy array, so a GPU has finished by then.
    loaded.scores([image])
    return time.perf_counter() - started


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
