"""Assemble a model package from a run's outs, the way `register` seals it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from zdm_ml.data.images import decode_grey
from zdm_ml.data.manifest import CLASSES, Row, write_manifest
from zdm_ml.errors import PackageError
from zdm_ml.files import read_json, sha256_file, sha256_json, write_json, write_text
from zdm_ml.models.net import load_net
from zdm_ml.registry.card import model_card
from zdm_ml.registry.package import (
    FORMAT,
    GOLDEN_PIXELS,
    IDENTITY,
    LATER_CONTENTS,
    Package,
    Source,
    content_digest,
    load_package,
)

GOLDEN_PER_CLASS = 2
GOLDEN_TOLERANCE = 1e-3


def assemble(
    destination: Path,
    *,
    model: Path,
    evaluation: Path,
    rows: Sequence[Row],
    castings: Path,
    source: Source,
) -> Package:
    """Build a package in `destination` (which must not exist) and return it verified.

    `model` and `evaluation` are the outs of one model, `rows` the manifest with its split,
    `castings` the folder that the rows' paths are relative to.
    """
    if destination.exists():
        raise PackageError(f"{destination} exists already", hint="name a folder that does not")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".package-") as temporary:
        folder = Path(temporary) / "package"
        folder.mkdir()
        for origin in (
            model / "weights.safetensors",
            model / "net.json",
            evaluation / "decision.json",
            evaluation / "metrics.json",
        ):
            _copy(origin, folder)
        for name in LATER_CONTENTS:
            if (evaluation / name).is_file():  # runs of earlier versions have none
                _copy(evaluation / name, folder)
        _write_castings(folder, rows, source.data_md5)
        _write_golden(folder, rows, castings)
        write_text(folder / "MODEL_CARD.md", model_card(folder, source))
        _seal(folder, source)
        folder.rename(destination)
    return load_package(destination)


def _copy(origin: Path, folder: Path) -> None:
    if not origin.is_file():
        raise PackageError(f"{origin} is missing", hint="run `dvc repro`, or `dvc checkout`")
    shutil.copyfile(origin, folder / origin.name)


def _write_castings(folder: Path, rows: Iterable[Row], data_md5: str) -> None:
    rows = list(rows)
    trained_on = sorted({r.part for r in rows if r.split in ("train", "val", "calibration")})
    write_json(
        folder / "castings.json",
        {
            "trained_on": trained_on,
            "trained_on_digest": sha256_json(trained_on),
            "data_md5": data_md5,
        },
    )
    write_manifest(folder / "test.csv", (row for row in rows if row.split == "test"))


def _write_golden(folder: Path, rows: Iterable[Row], castings: Path) -> None:
    """Store a few calibration images as lossless grey PNG with the scores the net gives them.

    Where the threshold was calibrated on val, val images stand in.
    """
    ordered = sorted(rows, key=lambda row: row.path)
    sides = ([r for r in ordered if r.split == side] for side in ("calibration", "val"))
    candidates = next(filter(None, sides), [])
    chosen = [
        row
        for label in CLASSES
        for row in [r for r in candidates if r.label == label][:GOLDEN_PER_CLASS]
    ]
    if not chosen:
        raise PackageError("no calibration images to test the package with")
    images = [decode_grey(castings / row.path, max_pixels=GOLDEN_PIXELS) for row in chosen]
    names = [f"golden/{row.label}-{index}.png" for index, row in enumerate(chosen)]
    (folder / "golden").mkdir()
    for name, image in zip(names, images, strict=True):
        _save_png(folder / name, image)
    scores = load_net(folder).scores(images)
    entries = [
        {"file": name, "score": float(score)} for name, score in zip(names, scores, strict=True)
    ]
    write_json(folder / "golden.json", {"images": entries, "tolerance": GOLDEN_TOLERANCE})


def _save_png(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path, format="PNG")


def _seal(folder: Path, source: Source) -> None:
    spec = read_json(folder / "net.json")
    if spec.get("model_name") != source.model_name:
        raise PackageError(
            f"{source.model_name!r} asked for, but net.json is of {spec.get('model_name')!r}"
        )
    files = {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    values = asdict(source)
    digest = content_digest(files, {key: values[key] for key in IDENTITY})
    write_json(
        folder / "package.json", {"format": FORMAT, **values, "files": files, "digest": digest}
    )
