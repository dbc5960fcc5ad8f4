"""Where and how precisely a net is trained, and what makes a training repeatable."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch

from zdm_ml.errors import ConfigError

Precision = Literal["fp32", "bf16"]

log = logging.getLogger(__name__)


def choose_device(text: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `cuda` or `cuda:<n>`; `auto` prefers a GPU.

    A device that this machine lacks, or that training does not support, gives way to the CPU with
    a warning; text that names no device raises `ConfigError`.
    """
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise ConfigError(
            f"train.device: {text!r} is no device",
            hint="set train.device to auto, cpu, cuda or cuda:<n> in params.yaml",
        ) from error
    if device.type not in ("cpu", "cuda"):
        return _instead_of(text, "only cpu and cuda are supported")
    # torch wraps an index above 127 round to a negative one.
    if device.type == "cuda" and not 0 <= (device.index or 0) < torch.cuda.device_count():
        return _instead_of(text, f"this machine has {torch.cuda.device_count()} usable GPUs")
    return device


def choose_precision(text: str, device: torch.device) -> Precision:
    """Return the precision for `auto`, `fp32` or `bf16`.

    `auto` is bf16 where the device computes in it: a CPU with AVX512-BF16 or AMX, a GPU from
    Ampere on.
    """
    if text == "auto":
        return "bf16" if _computes_bf16(device) else "fp32"
    if text == "fp32":
        return "fp32"
    if text == "bf16":
        return "bf16"
    raise ConfigError(f"train.precision: {text!r} is none of auto, fp32, bf16")


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context of a forward pass: bf16 where it is safe, or nothing under fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def allow_tf32(device: torch.device, precision: Precision) -> None:
    """Let a GPU compute what stays in fp32 under bf16 autocast in TF32; fp32 stays exact.

    Matrix products and convolutions have a switch each; cuDNN's is on unless it is turned off.
    """
    if device.type == "cuda":
        allowed = precision == "bf16"
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed


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


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _instead_of(text: str, why: str) -> torch.device:
    log.warning("train.device: %r cannot be used (%s): training on the CPU", text, why)
    return torch.device("cpu")
