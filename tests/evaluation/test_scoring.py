from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zdm_ml.data.images import decode_grey
from zdm_ml.data.manifest import Row
from zdm_ml.errors import DataError
from zdm_ml.evaluation.scoring import score_rows
from zdm_ml.models import zoo
from zdm_ml.models.net import LoadedNet, NetSpec

LIMITS = {"batch_size": 3, "max_pixels": 10_000}


def luna() -> LoadedNet:
    torch.manual_seed(0)
    spec = NetSpec("luna", ("ok", "defect"), 32, 0.5, 0.2, "scratch", None, "full", "smoke")
    return LoadedNet(spec, zoo.build("luna", 32).eval(), torch.device("cpu"))


def rows(folder: Path, count: int) -> list[Row]:
    rng = np.random.default_rng(0)
    made = []
    for place in range(count):
        size = 32 + place % 3
        Image.fromarray(rng.integers(0, 256, (size, size), np.uint8)).save(folder / f"{place}.png")
        made.append(Row(f"{place}.png", "", "ok", "", "test", "test", -1, size, size, 0, "", ""))
    return made


@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_scores_are_those_of_each_image_in_order(tmp_path: Path, count: int) -> None:
    loaded, wanted = luna(), rows(tmp_path, count)

    scores = score_rows(loaded, wanted, tmp_path, **LIMITS)

    alone = [loaded.scores([decode_grey(tmp_path / r.path, max_pixels=10_000)])[0] for r in wanted]
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, alone, atol=1e-6)


def test_progress_counts_images(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []

    score_rows(
        luna(), rows(tmp_path, 7), tmp_path, **LIMITS, on_step=lambda *step: steps.append(step)
    )

    assert steps == [(3, 7), (6, 7), (7, 7)]


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    wanted = rows(tmp_path, 7)
    (tmp_path / "5.png").unlink()

    with pytest.raises(DataError, match=r"5\.png cannot be read"):
        score_rows(luna(), wanted, tmp_path, **LIMITS)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    wanted = rows(tmp_path, 7)
    path = tmp_path / "5.png"
    path.write_bytes(path.read_bytes()[:200])

    with pytest.raises(DataError, match=r"5\.png"):
        score_rows(luna(), wanted, tmp_path, **LIMITS)
