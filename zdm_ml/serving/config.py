"""What an inference server is given: values only, the environment is read elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What one request may cost; all but `body_seconds` are checked before an image is decoded.

    `pending` requests are read, waiting or scored at a time; the next one is turned away.
    """

    body_bytes: int = 10 * MIB
    batch_bytes: int = 64 * MIB
    batch_images: int = 64
    pixels: int = 25_000_000
    pending: int = 64
    body_seconds: float = 20.0


@dataclass(frozen=True)
class ServingConfig:
    """`name` is the registered model, `state` the folder that keeps verified packages.

    `workers` threads score at a time, each with `torch_threads` threads of its own.
    """

    name: str
    state: Path
    store_url: str
    poll_seconds: float = 2.0
    workers: int = 2
    torch_threads: int = 1
    limits: Limits = field(default_factory=Limits)
