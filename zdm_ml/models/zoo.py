"""The eight architectures; a ninth is one more `register` call here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

from torch import nn
from torchvision import models

from zdm_ml.errors import ConfigError
from zdm_ml.models import dino, luna
from zdm_ml.models.official import OfficialWeights

Family = Literal["scratch", "CNN", "transformer"]
MapLayout = Literal["planes", "grid", "tokens"]

_TORCHVISION_LICENCE = "BSD-3-Clause; trained on ImageNet-1k (its terms: non-commercial research)"
# Behind the last attention only the class token counts: what patches say reaches it from here.
_VIT_MAP = "encoder.layers.encoder_layer_11.ln_1"


@dataclass(frozen=True)
class Architecture:
    """One net of the zoo and what training needs to know about its inside.

    `build(input_size, num_classes)` takes 3-channel images and returns logits; `head` is the
    layer that is new for our classes; `last` are the modules that `transfer: partial` trains
    with it. `map_layer` is the last module whose output still tells places apart, for heat maps:
    [N, C, h, w] in layout `planes`, [N, h, w, C] in `grid`, [N, 1 + h * w, C] in `tokens`, the
    first of which stands for no place. `input_size` must be at least `smallest` and a multiple of
    `step`. `patch` is the patch size where position embeddings depend on the input size. `modern`
    builds what recipe `modern` makes of the net, where that is another one.
    """

    name: str
    family: Family
    reference_size: int
    build: Callable[[int, int], nn.Module]
    head: str
    last: tuple[str, ...]
    map_layer: str
    smallest: int
    map_layout: MapLayout = "planes"
    step: int = 1
    patch: int | None = None
    weights: OfficialWeights | None = None
    licence: str = _TORCHVISION_LICENCE
    modern: Callable[[int, int], nn.Module] | None = None


_REGISTRY: dict[str, Architecture] = {}


def register(entry: Architecture) -> None:
    """Add an architecture; a name that is taken raises `ValueError`."""
    if entry.name in _REGISTRY:
        raise ValueError(f"architecture {entry.name!r} is registered twice")
    _REGISTRY[entry.name] = entry


def architecture(name: str) -> Architecture:
    """Return one architecture; an unknown name raises `ConfigError` with the known ones."""
    if name not in _REGISTRY:
        raise ConfigError(
            f"unknown model {name!r}; known: {', '.join(_REGISTRY)}",
            hint="correct the name, or register the architecture in zdm_ml/models/zoo.py",
        )
    return _REGISTRY[name]


def build(name: str, input_size: int, num_classes: int = 2, recipe: str = "reference") -> nn.Module:
    """Return a net with random weights: float [N, 3, input_size, input_size] to logits.

    `recipe` matters to architectures that have a `modern` form.
    """
    entry = architecture(name)
    if input_size < entry.smallest or input_size % entry.step:
        raise ConfigError(
            f"{name} cannot take input_size {input_size}: it needs at least {entry.smallest}"
            f" and a multiple of {entry.step}",
            hint=f"correct models.{name}.input_size in params.yaml",
        )
    modern = entry.modern if recipe == "modern" else None
    return (modern or entry.build)(input_size, num_classes)


def _torchvision(name: str, input_size: int, num_classes: int) -> nn.Module:
    # Only ViTs are built for one size; the others pool whatever map is left.
    sized = {"image_size": input_size} if name.startswith("vit_") else {}
    return cast(nn.Module, models.get_model(name, weights=None, num_classes=num_classes, **sized))


def _official(name: str) -> OfficialWeights:
    chosen = models.get_model_weights(name)["IMAGENET1K_V1"]
    return OfficialWeights(source=f"torchvision {chosen}", url=chosen.url)


def _vit_last(layers: int) -> tuple[str, ...]:
    blocks = (f"encoder.layers.encoder_layer_{index}" for index in (layers - 2, layers - 1))
    return (*blocks, "encoder.ln")


register(
    Architecture(
        name="luna",
        family="scratch",
        reference_size=300,
        build=luna.Luna,
        modern=luna.ModernLuna,
        head="head",
        last=("blocks.3",),
        map_layer="blocks",
        smallest=luna.SMALLEST,
        licence="none needed: no pretrained weights",
    )
)
register(
    Architecture(
        name="alexnet",
        family="CNN",
        reference_size=300,
        build=partial(_torchvision, "alexnet"),
        head="classifier.6",
        last=("features.10", "classifier"),
        map_layer="features.11",
        smallest=63,
        weights=_official("alexnet"),
    )
)
register(
    Architecture(
        name="resnet18",
        family="CNN",
        reference_size=300,
        build=partial(_torchvision, "resnet18"),
        head="fc",
        last=("layer4",),
        map_layer="layer4",
        smallest=32,
        weights=_official("resnet18"),
    )
)
register(
    Architecture(
        name="efficientnet_v2_s",
        family="CNN",
        reference_size=300,
        build=partial(_torchvision, "efficientnet_v2_s"),
        head="classifier.1",
        last=("features.6", "features.7"),
        map_layer="features",
        smallest=32,
        weights=_official("efficientnet_v2_s"),
    )
)
register(
    Architecture(
        name="convnext_tiny",
        family="CNN",
        reference_size=300,
        build=partial(_torchvision, "convnext_tiny"),
        head="classifier.2",
        last=("features.6", "features.7", "classifier"),
        map_layer="features",
        smallest=32,
        weights=_official("convnext_tiny"),
    )
)
register(
    Architecture(
        name="vit_b_16",
        family="transformer",
        reference_size=224,
        build=partial(_torchvision, "vit_b_16"),
        head="heads.head",
        last=_vit_last(12),
        map_layer=_VIT_MAP,
        map_layout="tokens",
        smallest=32,
        step=16,
        patch=16,
        weights=_official("vit_b_16"),
    )
)
register(
    Architecture(
        name="swin_t",
        family="transformer",
        reference_size=224,
        build=partial(_torchvision, "swin_t"),
        head="head",
        last=("features.6", "features.7", "norm"),
        map_layer="norm",
        map_layout="grid",
        smallest=32,
        weights=_official("swin_t"),
    )
)
register(
    Architecture(
        name="dino_vits8",
        family="transformer",
        reference_size=224,
        build=dino.build_dino,
        head="heads.head",
        last=_vit_last(12),
        map_layer=_VIT_MAP,
        map_layout="tokens",
        smallest=16,
        step=dino.PATCH,
        patch=dino.PATCH,
        weights=OfficialWeights(
            source="facebookresearch/dino ViT-S/8",
            url="https://dl.fbaipublicfiles.com/dino/dino_deitsmall8_pretrain/"
            "dino_deitsmall8_pretrain.pth",
            rename=dino.torchvision_keys,
        ),
        licence="Apache-2.0; trained on ImageNet-1k (its terms: non-commercial research)",
    )
)

MODEL_NAMES = tuple(_REGISTRY)
