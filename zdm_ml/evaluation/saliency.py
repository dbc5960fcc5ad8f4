"""Heat maps: where in an image a net sees what speaks for a defect."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch

from zdm_ml.errors import PackageError
from zdm_ml.models.net import LoadedNet
from zdm_ml.models.zoo import MapLayout, architecture

Grey = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]


def heat_map(loaded: LoadedNet, image: Grey) -> Heat:
    """Return how much each place of an image speaks for a defect, float32 [H, W] in [0, 1].

    `image` is grey uint8 [H, W] of any size. The map is relative to the image: its largest value
    is 1, and it is zero everywhere when nothing in the image speaks for a defect.

    Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization", ICCV 2017; library pytorch-grad-cam) of the log-odds of a defect at the
    architecture's `map_layer`: the positive part of the sum over channels of activation times mean
    gradient, resized bilinearly. The channels of a transformer are those of its patch tokens. A net
    that looks at its input in quarter turns has one set of channels per turn, turned back.

    Not while another thread uses the net. Raises `DataError` for another kind of array and
    `PackageError` when the net answers with something that is no number.
    """
    with torch.inference_mode(False), torch.enable_grad():
        evidence = _evidence(loaded, loaded.inputs([image]))
    whole = cv2.resize(evidence, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    peak = float(whole.max())
    if not np.isfinite(peak):
        raise PackageError(
            f"the heat map of {loaded.spec.model_name} holds {peak}", hint="train the model again"
        )
    return np.asarray(whole / peak if peak > 0 else whole, dtype=np.float32)


def _evidence(loaded: LoadedNet, inputs: torch.Tensor) -> Heat:
    """Return the map at the net's input size, float32 [S, S], at least 0."""
    from pytorch_grad_cam import GradCAM

    entry = architecture(loaded.spec.model_name)
    layer = loaded.net.get_submodule(entry.map_layer)
    # No gradient is needed of what lies before, and the parameters may be frozen.
    cut = layer.register_forward_hook(lambda _module, _inputs, output: _leaf(output))
    try:
        with GradCAM(
            loaded.net, [layer], lambda output: _placed(output, entry.map_layout, len(inputs))
        ) as cam:
            heat: Heat = cam(inputs, targets=[_log_odds])[0]
    finally:
        cut.remove()
    return heat


def _leaf(output: torch.Tensor) -> torch.Tensor:
    return output.detach().requires_grad_()


def _log_odds(logits: torch.Tensor) -> torch.Tensor:
    """Return log(p / (1 - p)) of P(defect): in two logits neither class alone says it."""
    return logits[1] - logits[0]


def _placed(values: torch.Tensor, layout: MapLayout, images: int) -> torch.Tensor:
    """Return a layer's output as planes [images, channels, h, w] in the pose of the images."""
    if layout == "grid":
        values = values.movedim(-1, 1)
    elif layout == "tokens":
        patches = values[:, 1:].transpose(1, 2)
        side = round(patches.shape[2] ** 0.5)
        values = patches.reshape(*patches.shape[:2], side, side)
    turns = values.reshape(-1, images, *values.shape[1:])
    return torch.cat([planes.rot90(-turn, (2, 3)) for turn, planes in enumerate(turns)], 1)
