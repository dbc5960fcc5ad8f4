"""Where a net's first weights come from: official files, a mirror of them, or chance."""

from __future__ import annotations

import logging
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn
from torchvision.models.vision_transformer import interpolate_embeddings

from zdm_ml.errors import WeightsError
from zdm_ml.models.official import (
    MissingWeightsError,
    OfficialWeights,
    Progress,
    WeightsFile,
    from_folder,
    from_network,
    read_state,
)
from zdm_ml.models.zoo import Architecture, architecture

log = logging.getLogger(__name__)

Origin = Literal["official", "mirror"]


@dataclass(frozen=True)
class Init:
    """How a net began: its kind, the official file's name and sha256, and a warning to show."""

    kind: Origin | Literal["scratch"]
    file: str | None = None
    sha256: str = ""
    warning: str = ""


def initialise(
    name: str,
    net: nn.Module,
    input_size: int,
    source: str,
    *,
    cache: Path,
    mirror: Path | None = None,
    official: OfficialWeights | None = None,
    progress: Progress | None = None,
) -> Init:
    """Give `net` its first weights; its head keeps the random ones.

    `source` is auto (official, then `mirror`, then from scratch with a warning), official, none,
    or a folder of the official files. `official` stands in for the architecture's own file.
    """
    entry = architecture(name)
    weights = official or entry.weights
    if weights is None or source == "none":
        return Init("scratch")
    try:
        kind, file = _find(weights, source, cache, mirror, progress)
    except MissingWeightsError as error:
        if source != "auto":
            raise
        return _scratch(name, error.problem)
    _load(entry, weights, net, input_size, file.path)
    log.info("%s starts from %s (%s)", name, file.path, kind)
    if not weights.sha256_prefix:
        log.info("no hash is published for %s: its sha256 is %s", file.path.name, file.sha256)
    return Init(kind, weights.file_name, file.sha256)


def _find(
    weights: OfficialWeights,
    source: str,
    cache: Path,
    mirror: Path | None,
    progress: Progress | None,
) -> tuple[Origin, WeightsFile]:
    if source == "official":
        return "official", from_network(weights, cache, progress)
    if source != "auto":
        return "mirror", from_folder(weights, Path(source))
    try:
        return "official", from_network(weights, cache, progress)
    except WeightsError as error:  # altered, too: a closed network may answer with a login page
        offline = error.problem
    if mirror is None:
        raise MissingWeightsError(f"{offline}; no mirror folder is set (ZDM_WEIGHTS_DIR)")
    try:
        return "mirror", from_folder(weights, mirror)
    except MissingWeightsError as error:
        raise MissingWeightsError(f"{offline}; {error.problem}") from error


def _scratch(name: str, reason: str) -> Init:
    warning = (
        f"{name} STARTS FROM SCRATCH, without pretrained weights: {reason}."
        " It trains by the scratch recipe and will be worse."
    )
    log.warning(warning)
    return Init("scratch", warning=warning)


def _load(
    entry: Architecture, weights: OfficialWeights, net: nn.Module, input_size: int, path: Path
) -> None:
    state = read_state(path)
    if weights.rename:
        state = weights.rename(state)
    head = f"{entry.head}."
    state = {key: tensor for key, tensor in state.items() if not key.startswith(head)}
    # The net's own random head completes the state, so that loading can demand every key.
    state |= {key: tensor for key, tensor in net.state_dict().items() if key.startswith(head)}
    try:
        if entry.patch:
            state = dict(interpolate_embeddings(input_size, entry.patch, state))
        net.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path} does not fit {entry.name}: {textwrap.shorten(str(error), 300)}",
            hint=f"fetch the official file {weights.url}",
        ) from error
