"""Small castings datasets on disk."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zdm_ml.data.archive import Staged, stage_source

REAL_CASTINGS = Path(__file__).resolve().parents[3] / "shared" / "castings.zip"
CLASS_FOLDERS = ("train/def_front", "train/ok_front", "test/def_front", "test/ok_front")


@pytest.fixture(scope="session")
def jpeg() -> Callable[[int], bytes]:
    """A function that returns a 32 px JPEG, another one for each seed."""

    def make(seed: int) -> bytes:
        buffer = io.BytesIO()
        levels = np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(levels).save(buffer, "JPEG")
        return buffer.getvalue()

    return make


@pytest.fixture
def dataset(tmp_path: Path, jpeg: Callable[[int], bytes]) -> Path:
    """A complete folder of 24 different images, six per shipped split and class."""
    root = tmp_path / "dataset"
    for number in range(24):
        folder = root / CLASS_FOLDERS[number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"cast_{number}.jpeg").write_bytes(jpeg(number))
    return root


@pytest.fixture(scope="session")
def real_castings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Staged, Path]:
    """The 4,815 real castings, staged once; skips where their archive is absent."""
    if not REAL_CASTINGS.is_file():
        pytest.skip("the real castings are not beside the project")
    folder = tmp_path_factory.mktemp("real")
    staged = stage_source(
        REAL_CASTINGS,
        folder / "castings",
        quarantine=folder / "quarantine",
        max_pixels=25_000_000,
    )
    return staged, folder / "castings"
