"""How many GPUs this machine has, without importing torch."""

from __future__ import annotations

import subprocess

PATIENCE_SECONDS = 20


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
