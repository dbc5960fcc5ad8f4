"""Where and how precisely a net is trained, and what makes a training repeatable."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch

from zdm_ml.errors import ConfigError

Precision = Literal["fp32", "bf16"]


def choose_device(text: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:<n>`; `auto` prefers a GPU.

    A device that this machine lacks raises `ConfigError`.
    """
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise _unusable(text, "it is no device") from error
    if device.type not in ("cpu", "cuda"):
        raise _unusable(text, "only cpu and cuda are supported")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise _unusable(text, f"this machine has {torch.cuda.device_count()} usable GPUs")
    return device


def choose_precision(text: str, device: torch.device) -> Precision:
    """Return the precision for `auto`, `fp32` or `bf16`; `auto` is bf16 on a GPU that has it."""
    if text == "auto":
        capable = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if capable else "fp32"
    if text == "fp32":
        return "fp32"
    if text == "bf16":
        return "bf16"
    raise ConfigError(f"train.precision: {text!r} is none of auto, fp32, bf16")


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context of a forward pass: bf16 where it is safe, or nothing under fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch on every device; `seed` is taken modulo 2^32."""
    seed %= 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a CPU, keep torch to operations whose result does not depend on the order of threads.

    Without it the gradient of an indexed table (Swin's position bias) is summed in any order.
    On a GPU nothing changes: some gradients have no such operation there.
    """
    if device.type != "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic  # a module whose switch torch leaves untyped
    fill_before = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before writing it, and filling it costs time.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fill_before


def _unusable(text: str, why: str) -> ConfigError:
    return ConfigError(
        f"train.device: {text!r} cannot be used: {why}",
        hint="set train.device to auto, cpu, cuda or cuda:<n> in params.yaml",
    )
