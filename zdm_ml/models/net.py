"""A trained net in a folder: weights.safetensors beside net.json, never a pickle."""

from __future__ import annotations

import hashlib
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from zdm_ml.data.manifest import CLASSES
from zdm_ml.errors import ConfigError, DataError, PackageError
from zdm_ml.files import read_json, write_bytes, write_json
from zdm_ml.models import zoo
from zdm_ml.models.scoring import ScoringModule, preprocess
from zdm_ml.recipes import RecipeName

__all__ = ["LoadedNet", "NetSpec", "ScoringModule", "load_net", "preprocess", "save_net"]

WEIGHTS_FILE = "weights.safetensors"
SPEC_FILE = "net.json"
# What packages of 0.1.0 lack: theirs was the reference recipe.
_LATER_KEYS = {"recipe": "reference", "standardise": False}
# Larger images are resized one by one, so that a batch of photographs does not fill the memory.
_STACKABLE_PIXELS = 1 << 20


@dataclass(frozen=True)
class NetSpec:
    """What net.json says: enough to rebuild the net and its preprocessing.

    `mean` and `std` normalise grey values in [0, 1], `standardise` each image by itself after
    that; `recipe` names the form of the architecture and how it was trained; `init` is official,
    mirror or scratch and `weights_file` the official file it started from; `digest` is the sha256
    of the weights.
    """

    model_name: str
    classes: tuple[str, ...]
    input_size: int
    mean: float
    std: float
    init: str
    weights_file: str | None
    transfer: str
    profile: str
    recipe: str = "reference"
    standardise: bool = False
    digest: str = ""


@dataclass(frozen=True)
class LoadedNet:
    """A verified net in eval mode; `scores` may be called from several threads at once."""

    spec: NetSpec
    net: nn.Module
    device: torch.device

    def scores(self, images: Sequence[np.ndarray], batch_size: int = 64) -> np.ndarray:
        """Return P(defect) as float64 [N] of N grey uint8 images [H, W], each of any size."""
        batches = [
            self._score_batch(images[start : start + batch_size])
            for start in range(0, len(images), batch_size)
        ]
        return np.concatenate(batches) if batches else np.empty(0)

    def inputs(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Return what the net sees of grey uint8 images [H, W]: float32 [N, 3, S, S]."""
        return torch.cat([self._prepare(stack) for stack in _stacks(images)])

    @torch.inference_mode()
    def _score_batch(self, images: Sequence[np.ndarray]) -> np.ndarray:
        scores: np.ndarray = self.net(self.inputs(images)).softmax(1)[:, 1].double().cpu().numpy()
        return scores

    def _prepare(self, stack: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(stack).unsqueeze(1).to(self.device)
        return preprocess(pixels, self.spec)


def save_net(folder: Path, net: nn.Module, spec: NetSpec) -> NetSpec:
    """Write the net into `folder` and return its spec with the digest of the written weights."""
    state = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    _refuse_nonfinite(state, folder / WEIGHTS_FILE)
    content = save_tensors(state)
    spec = replace(spec, digest=hashlib.sha256(content).hexdigest())
    write_bytes(folder / WEIGHTS_FILE, content)
    write_json(folder / SPEC_FILE, asdict(spec))
    return spec


def load_net(folder: Path, device: torch.device | str = "cpu") -> LoadedNet:
    """Rebuild the net in `folder`; anything missing, altered or unusable raises `PackageError`."""
    spec = read_spec(folder)
    state = _read_weights(folder / WEIGHTS_FILE, spec.digest)
    # Memory is given by the checkpoint: no time goes into random weights that are thrown away.
    with torch.device("meta"):
        net = _build(spec, folder)
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise PackageError(
            f"{folder / WEIGHTS_FILE} does not fit {spec.model_name}:"
            f" {textwrap.shorten(str(error), 300)}",
            hint="train the model again",
        ) from error
    place = torch.device(device)
    if place.type == "cuda":
        # Scores are compared with those of other stages, whatever a training before this allowed.
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
    return LoadedNet(spec, net.requires_grad_(False).eval().to(place), place)


def read_spec(folder: Path) -> NetSpec:
    """Read and check net.json alone; `PackageError` when it is missing, damaged or not for us."""
    path = folder / SPEC_FILE
    try:
        raw = read_json(path)
    except OSError as error:
        raise _missing(path, error) from error
    except ValueError as error:
        raise PackageError(f"{path} is not JSON: {error}", hint="train the model again") from error
    spec = _parse_spec(raw, path)
    if spec.classes != CLASSES:
        raise PackageError(
            f"{path} has classes {spec.classes}, not {CLASSES}: its scores would mean the opposite",
            hint="train the model again with this version of the product",
        )
    return spec


def _parse_spec(raw: Any, path: Path) -> NetSpec:
    names = {field.name for field in fields(NetSpec)}
    if not isinstance(raw, dict) or set(raw) | set(_LATER_KEYS) != names:
        raise PackageError(f"{path} must have exactly the keys {', '.join(sorted(names))}")
    classes = tuple(raw["classes"]) if type(raw["classes"]) is list else None
    values = {**_LATER_KEYS, **raw, "classes": classes}
    for name, kind in get_type_hints(NetSpec).items():
        value = values[name]
        expected = tuple if name == "classes" else kind
        if not isinstance(value, expected) or isinstance(value, bool) != (kind is bool):
            raise PackageError(f"{path}: {name} is {raw[name]!r}", hint="train the model again")
    if values["recipe"] not in get_args(RecipeName):
        raise PackageError(
            f"{path}: unknown recipe {values['recipe']!r}",
            hint="update this product, or train again",
        )
    if not (math.isfinite(values["mean"]) and 0 < values["std"] < math.inf):
        normalisation = f"mean is {values['mean']}, std is {values['std']}"
        raise PackageError(f"{path}: {normalisation}", hint="train the model again")
    return NetSpec(**values)


def _read_weights(path: Path, digest: str) -> dict[str, torch.Tensor]:
    # One read for both the digest and the tensors: what was verified is what is loaded.
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _missing(path, error) from error
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise PackageError(
            f"{path} is not the file that net.json describes: its sha256 is {found[:12]},"
            f" expected {digest[:12] or 'none'}",
            hint="restore it with `dvc checkout`, or train the model again",
        )
    try:
        state: dict[str, torch.Tensor] = load_tensors(content)
    except SafetensorError as error:
        raise PackageError(f"{path} is not a safetensors file: {error}") from error
    _refuse_nonfinite(state, path)
    return state


def _build(spec: NetSpec, folder: Path) -> nn.Module:
    try:
        return zoo.build(spec.model_name, spec.input_size, len(CLASSES), spec.recipe)
    except ConfigError as error:
        raise PackageError(f"{folder / SPEC_FILE}: {error.problem}", hint=error.hint) from error


def _refuse_nonfinite(state: dict[str, torch.Tensor], path: Path) -> None:
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise PackageError(
                f"{path}: {key} holds NaN or infinite values",
                hint="train the model again with a smaller learning rate",
            )


def _missing(path: Path, error: OSError) -> PackageError:
    return PackageError(
        f"{path} cannot be read: {error.strerror}",
        hint="run the train stage, or restore it with `dvc checkout`",
    )


def _stacks(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 2 or image.size == 0:
            raise DataError(
                f"an image to score must be uint8 [H, W], not {image.dtype} {list(image.shape)}",
                hint="decode it with zdm_ml.data.images.decode_grey",
            )
    small = images[0].size <= _STACKABLE_PIXELS
    if small and all(image.shape == images[0].shape for image in images):
        return [np.stack(images)]
    return [np.stack([image]) for image in images]
