import logging
import random
from typing import Any

import numpy as np
import pytest
import torch

from zdm_ml.errors import ConfigError
from zdm_ml.training.device import (
    allow_tf32,
    autocast,
    choose_device,
    choose_precision,
    repeatable,
    seed_everything,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def test_auto_is_the_gpu_when_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"

    assert choose_device("auto").type == expected


def test_the_cpu_is_taken_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_device("cpu") == CPU
    assert not caplog.records


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("cuda", "0 usable GPUs", marks=no_gpu),
        pytest.param("cuda:1", "0 usable GPUs", marks=no_gpu),
        ("cuda:99", "usable GPUs"),
        ("cuda:200", "usable GPUs"),
        ("mps", "only cpu and cuda"),
        ("xpu", "only cpu and cuda"),
        ("meta", "only cpu and cuda"),
    ],
)
def test_a_device_that_cannot_be_used_gives_way_to_the_cpu_with_a_warning(
    text: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        device = choose_device(text)

    (record,) = caplog.records
    assert device == CPU
    assert f"train.device: '{text}'" in record.getMessage() and why in record.getMessage()


@pytest.mark.parametrize("text", ["gpu", "", "cuda:x", "cuda:-1", "CPU"])
def test_text_that_names_no_device_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"train.device: '{text}' is no device"):
        choose_device(text)


@pytest.mark.parametrize(
    ("found", "precision"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_auto_is_bf16_on_a_cpu_that_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)

    assert choose_precision("auto", CPU) == precision


@no_gpu
def test_auto_precision_is_fp32_without_bf16_hardware() -> None:
    assert choose_precision("auto", CUDA) == "fp32"


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp16"):
        choose_precision("fp16", CPU)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_autocast_sets_the_type_of_products(precision, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        product = torch.ones(2, 2) @ torch.ones(2, 2)

    assert product.dtype == dtype


@pytest.mark.parametrize("seed", [0, 20, -1, 2**40])
def test_seed_repeats_every_generator(seed: int) -> None:
    draws = []
    for _ in range(2):
        seed_everything(seed)
        draws.append((random.random(), np.random.rand(), float(torch.rand(()))))

    assert draws[0] == draws[1]


def test_repeatable_is_undone_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), repeatable(CPU):
        assert torch.are_deterministic_algorithms_enabled()
        raise ZeroDivisionError

    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("precision", "allowed"), [("bf16", "high"), ("fp32", "highest")])
def test_tf32_is_for_bf16_on_a_gpu_alone(precision: Any, allowed: str) -> None:
    def set_now() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = set_now()
    try:
        allow_tf32(CPU, precision)
        assert set_now() == before
        allow_tf32(torch.device("cuda"), precision)
        assert set_now() == (allowed, precision == "bf16")
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_gradient_of_an_indexed_table_does_not_depend_on_threads() -> None:
    """Swin's position bias is such a table; without `repeatable` threads add in any order."""
    index = torch.randint(0, 4, (40_000,), generator=torch.Generator().manual_seed(0))
    weight = torch.rand(40_000, generator=torch.Generator().manual_seed(1))
    gradients = []

    with repeatable(CPU):
        for _ in range(5):
            table = torch.zeros(4, requires_grad=True)
            (table[index] * weight).sum().backward()
            gradients.append(table.grad)

    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
