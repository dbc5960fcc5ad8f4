"""How many GPUs this machine has, without importing torch."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

PATIENCE_SECONDS = 20


def visible_devices(environ: Mapping[str, str]) -> list[str]:
    """Return the GPUs that `CUDA_VISIBLE_DEVICES` grants, none where it is not set."""
    return [
        name.strip() for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()
    ]


def count_gpus() -> int:
    """Return the number of NVIDIA GPUs that the driver lists; 0 without a driver."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    if listed.returncode != 0:
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
