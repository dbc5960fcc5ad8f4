"""The model package: the folder that holds everything a decision depends on, sealed by sha256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zdm_ml.data.images import decode_grey
from zdm_ml.data.manifest import Row, read_manifest
from zdm_ml.errors import PackageError
from zdm_ml.evaluation.map_licence import (
    SALIENCY_FILE,
    MapLicence,
    not_measured,
    read_licence,
)
from zdm_ml.evaluation.verdicts import Ruling, read_ruling
from zdm_ml.files import read_json, sha256_file, sha256_json
from zdm_ml.models.net import LoadedNet, load_net

FORMAT = 1
CONTENTS = (
    "weights.safetensors",
    "net.json",
    "decision.json",
    "metrics.json",
    "castings.json",
    "test.csv",
    "golden.json",
)
# What packages of earlier versions lack: their heat maps have no licence.
LATER_CONTENTS = (SALIENCY_FILE,)
# Not part of a package's identity: the card names the run, golden scores may differ in their last
# digits from machine to machine and follow from the weights and the golden images.
DERIVED = ("MODEL_CARD.md", "golden.json")
IDENTITY = ("model_name", "profile", "data_md5", "params_hash")
GOLDEN_PIXELS = 25_000_000


@dataclass(frozen=True)
class Source:
    """Where a package comes from; only `IDENTITY` enters its digest."""

    model_name: str
    profile: str
    data_md5: str
    params_hash: str
    git_commit: str
    dvc_lock_md5: str
    run_id: str


@dataclass(frozen=True)
class PackageInfo(Source):
    """package.json: the source and the sha256 of every file by its relative path."""

    files: Mapping[str, str]
    trained_on: frozenset[str]
    trained_on_digest: str

    @cached_property
    def digest(self) -> str:
        """Identify the content: the same for two runs that produced the same model."""
        return content_digest(self.files, {key: getattr(self, key) for key in IDENTITY})


@dataclass(frozen=True)
class Package:
    """A verified package; `ruling` turns its scores into verdicts."""

    folder: Path
    info: PackageInfo
    net: LoadedNet
    ruling: Ruling

    @property
    def test_rows(self) -> list[Row]:
        """Return the manifest rows of the test images that belong to the package's data version."""
        return read_manifest(self.folder / "test.csv")

    @property
    def metrics(self) -> dict[str, Any]:
        """Return the figures that `evaluate` measured."""
        return dict(read_json(self.folder / "metrics.json"))

    @property
    def map_licence(self) -> MapLicence:
        """Return whether the heat maps of this very net may be shown."""
        if SALIENCY_FILE not in self.info.files:  # whatever lies there is not sealed
            return not_measured("the package is of a version that did not measure them")
        return read_licence(self.folder / SALIENCY_FILE, self.net.spec.digest)

    def golden_images(self) -> list[np.ndarray]:
        """Return the golden images, uint8 [H, W] each."""
        names = [entry["file"] for entry in read_json(self.folder / "golden.json")["images"]]
        return [decode_grey(self.folder / name, max_pixels=GOLDEN_PIXELS) for name in names]

    def self_test(self) -> float:
        """Score the golden images and return the largest deviation from the stored scores.

        Raises `PackageError` when a deviation exceeds the package's tolerance.
        """
        golden = read_json(self.folder / "golden.json")
        stored = np.array([entry["score"] for entry in golden["images"]])
        worst = float(np.abs(self.net.scores(self.golden_images()) - stored).max())
        if not worst <= golden["tolerance"]:  # also when it is NaN
            raise PackageError(
                f"package {self.folder}: golden scores are off by {worst:.2g}, "
                f"allowed {golden['tolerance']:.2g}",
                hint="compare the torch versions of training and serving, then register again",
            )
        return worst


def content_digest(files: Mapping[str, str], identity: Mapping[str, str]) -> str:
    """Return the digest of a package's content: the files less the derived ones, and `identity`."""
    kept = {name: sha for name, sha in files.items() if name not in DERIVED}
    return sha256_json({"files": kept, **identity})


def load_package(folder: Path, device: str = "cpu") -> Package:
    """Verify every sha256 and load the net; a flipped bit anywhere raises `PackageError`."""
    info = read_info(folder)
    net = load_net(folder, device)
    if (net.spec.model_name, net.spec.profile) != (info.model_name, info.profile):
        raise _broken(folder, f"net.json and package.json name different models: {net.spec!r}")
    return Package(folder=folder, info=info, net=net, ruling=_ruling(folder))


def read_info(folder: Path) -> PackageInfo:
    """Read package.json and verify the files it lists, without loading the net."""
    raw = _read(folder, "package.json")
    if raw.get("format") != FORMAT:
        raise _broken(folder, f"format {raw.get('format')!r}, this version reads {FORMAT}")
    files = raw.get("files")
    if not isinstance(files, dict):
        raise _broken(folder, "package.json lists no files")
    _verify(folder, files)
    castings = _read(folder, "castings.json")
    try:
        info = PackageInfo(
            **{key: str(raw[key]) for key in Source.__dataclass_fields__},
            files=files,
            trained_on=frozenset(castings["trained_on"]),
            trained_on_digest=castings["trained_on_digest"],
        )
    except KeyError as error:
        raise _broken(folder, f"key {error} is missing") from error
    if raw.get("digest") != info.digest:
        raise _broken(folder, "package.json does not match its own digest")
    if info.trained_on_digest != sha256_json(sorted(info.trained_on)):
        raise _broken(folder, "castings.json does not match its own digest")
    return info


def _verify(folder: Path, files: Mapping[str, str]) -> None:
    unlisted = [name for name in CONTENTS if name not in files]
    if unlisted:
        raise _broken(folder, f"package.json does not list {unlisted[0]}")
    for name, expected in sorted(files.items()):
        path = folder / name
        if not path.is_file():
            raise _broken(folder, f"{name} is missing")
        if sha256_file(path) != expected:
            raise _broken(folder, f"{name} does not match its sha256")


def _ruling(folder: Path) -> Ruling:
    decision = _read(folder, "decision.json")
    try:
        return read_ruling(decision)
    except ValueError as error:
        raise _broken(folder, f"decision.json gives no verdicts, {error}: {decision!r}") from error


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = read_json(folder / name)
    except OSError as error:
        raise _broken(folder, f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _broken(folder, f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _broken(folder, f"{name} is not a JSON object")
    return value


def _broken(folder: Path, problem: str) -> PackageError:
    return PackageError(
        f"model package {folder}: {problem}",
        hint="it is not used; download it again, or register the run again",
    )
