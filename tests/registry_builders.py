"""Small runs for the registry's tests: synthetic castings, a manifest, one LUNA per run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from zdm_ml.data.manifest import CLASSES, Row, write_manifest
from zdm_ml.evaluation.leaderboard import COLUMNS
from zdm_ml.files import sha256_file, write_json, write_text
from zdm_ml.models import zoo
from zdm_ml.models.net import NetSpec, save_net
from zdm_ml.registry.assembly import assemble
from zdm_ml.registry.package import Package, Source

DATA_MD5 = "0123456789abcdef0123456789abcdef.dir"
FINDING = {
    "level": "red",
    "title": "Test images whose casting is in train",
    "measured": "556 of 559 test images",
    "meaning": "Figures are too good.",
    "action": "",
}
METRICS = {
    "balanced_accuracy": 1.0,
    "escapes": 0,
    "leaky": False,
    "protocol": "grouped",
    "seen": {"accuracy": 1.0, "leaky": True},
    "by_casting": {
        "aggregation": "a casting is wrong when at least half of its images are judged wrong",
        "confidence": 0.95,
        "defective": 12,
        "good": 12,
        "escapes": 0,
        "overkills": 0,
        "escape_rate_upper": 0.221,
        "overkill_rate_upper": None,
        "failed": [],
    },
    "robustness": {
        "worst": {"name": "blur", "balanced_accuracy": 0.75, "escapes": 6},
        "images": 24,
    },
}
PER_CLASS = {"train": 2, "val": 2, "calibration": 3, "test": 12}


def make_castings(folder: Path, seed: int = 0) -> list[Row]:
    """Write grey images (defects are darker) and return their manifest rows."""
    rng = np.random.default_rng(seed)
    return [
        _image(folder, f"{split}/{label}/{index}.png", label, split, rng)
        for split, count in PER_CLASS.items()
        for label in CLASSES
        for index in range(count)
    ]


def _image(folder: Path, name: str, label: Any, split: Any, rng: np.random.Generator) -> Row:
    level = 60 if label == "defect" else 180
    pixels = np.clip(rng.normal(level, 20, (48, 56)), 0, 255).astype(np.uint8)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    sha = sha256_file(path)
    return Row(name, sha, label, sha, split, split, -1, 56, 48, float(pixels.mean()), "", "")


def make_run(
    folder: Path,
    castings: Path,
    rows: list[Row],
    *,
    model_name: str = "luna",
    profile: str = "quick",
    good: bool = True,
    seed: int = 0,
    threshold: float = 0.5,
    metrics: dict[str, Any] | None = None,
) -> Source:
    """Write models/, evaluation/, reports/ and the manifest of a finished run; return its source.

    A `good` net tells dark from bright and so judges every casting right; the others judge each
    one wrong. `metrics` stands in for what `evaluate` would have written.
    """
    model, evaluation = folder / "models" / model_name, folder / "evaluation" / model_name
    spec = NetSpec(model_name, CLASSES, 32, 0.5, 0.25, "scratch", None, "full", profile)
    save_net(model, _brightness_net(model_name, good, seed), spec)
    write_json(
        evaluation / "decision.json",
        {"threshold": threshold, "positive": "defect"},
    )
    write_json(evaluation / "metrics.json", metrics or METRICS)
    write_manifest(folder / "manifest" / "split.csv", rows)
    write_text(folder / "history" / f"{model_name}.csv", "epoch,train_loss\n0,0.5\n1,0.25\n")
    write_json(
        folder / "reports" / "selection.json",
        {"winner": model_name, "eligible": True, "reason": "fewest escapes", "rows": []},
    )
    write_json(folder / "reports" / "audit.json", {"findings": [FINDING]})
    write_json(folder / "reports" / "leaderboard.json", [board_row(model_name)])
    write_text(folder / "dvc.lock", json.dumps({"schema": "2.0", "seed": seed}))
    return Source(model_name, profile, DATA_MD5, f"params-{profile}", "c" * 40, "d" * 32, "run-1")


def board_row(model_name: str, **figures: Any) -> dict[str, Any]:
    """Return a row of a leaderboard; a model without `castings` failed."""
    known = {
        "rank": 1,
        "castings": 24,
        "defective_castings": 12,
        "good_castings": 12,
        "escapes_castings": 0,
        "overkills_castings": 0,
        "escapes": 0,
        "overkills": 0,
        "escape_rate_upper": 0.221,
        "overkill_rate_upper": 0.221,
        "cost": 1000.0,
        "p50_ms": 5.0,
        "profile": "quick",
        "reason": "has the lowest expected cost",
    }
    return {column: (known | figures).get(column) for column in COLUMNS} | {
        "model_name": model_name
    }


def assembled(
    destination: Path, run: Path, castings: Path, rows: Sequence[Row], source: Source
) -> Package:
    """Return the package of the LUNA in a run's folder."""
    return assemble(
        destination,
        model=run / "models" / "luna",
        evaluation=run / "evaluation" / "luna",
        rows=rows,
        castings=castings,
        source=source,
    )


def _brightness_net(model_name: str, good: bool, seed: int) -> torch.nn.Module:
    """A real net of the zoo whose weights make P(defect) fall (or rise) with brightness."""
    torch.manual_seed(seed)
    net = zoo.build(model_name, 32, 2).eval()
    head = [module for module in net.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.inference_mode():
        bright, dark = (_features(net, head, torch.full((1, 3, 32, 32), v)) for v in (0.9, -1.1))
    direction = (dark - bright) / (dark - bright).norm() ** 2
    middle = direction @ (dark + bright) / 2
    sign = 8.0 if good else -8.0
    with torch.no_grad():
        head.weight.copy_(torch.stack([-sign * direction, sign * direction]))
        head.bias.copy_(torch.stack([sign * middle, -sign * middle]))
    return net


def _features(net: torch.nn.Module, head: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].clone()))
    net(images)
    hook.remove()
    return seen[0]
