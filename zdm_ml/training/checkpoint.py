"""Checkpoints: a training's whole state in one file that is either whole or ignored."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zdm_ml.files import atomic_write

log = logging.getLogger(__name__)


def save(path: Path, state: Mapping[str, Any]) -> bool:
    """Replace the checkpoint at `path`; a full disk is a warning and returns False.

    `state` holds tensors, numbers, text, lists and mappings only, so that it loads unpickled.
    """
    try:
        with atomic_write(path) as file:
            torch.save(dict(state), file)
    # torch reports a failed write as RuntimeError.
    except (OSError, RuntimeError) as error:
        log.warning(
            "checkpoint %s not written: %s; a killed training goes on from the last one",
            path,
            error,
        )
        return False
    return True


def load(path: Path, signature: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the state at `path`, on the CPU, or None where there is none to go on from.

    A damaged file, or one whose `signature` entry differs, is ignored with a warning.
    """
    if not path.is_file():
        return None
    try:
        # torch does not compare checksums when it reads; the archive has them.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["signature"] != signature:
            raise ValueError("it belongs to another training")
    except Exception as error:  # damaged bytes raise whatever the parser trips over
        log.warning("checkpoint %s ignored: %s; the training starts over", path, error)
        return None
    return state
