"""The machine that figures come from, in words."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

import torch

PATIENCE_SECONDS = 20


def describe(device: torch.device) -> str:
    """Return the device, its driver, the processor with the cores this process may use, torch."""
    processor = f"{_processor()}, {_cores()} cores, torch {torch.__version__}"
    if device.type != "cuda":
        return f"cpu: {processor}"
    return f"{torch.cuda.get_device_name(device)}, driver {_driver()}; cpu: {processor}"


def _cores() -> int:
    # What a container grants may be less than what the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", listed.read_text()) if listed.is_file() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return (said.stdout.split() or ["unknown"])[0]
