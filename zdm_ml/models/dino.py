"""DINO ViT-S/8: torchvision's VisionTransformer under the official checkpoint's keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import nn
from torchvision.models import VisionTransformer

PATCH = 8

_TOP = {
    "cls_token": "class_token",
    "pos_embed": "encoder.pos_embedding",
    "patch_embed.proj.weight": "conv_proj.weight",
    "patch_embed.proj.bias": "conv_proj.bias",
    "norm.weight": "encoder.ln.weight",
    "norm.bias": "encoder.ln.bias",
}
_BLOCK = {
    "norm1.weight": "ln_1.weight",
    "norm1.bias": "ln_1.bias",
    "attn.qkv.weight": "self_attention.in_proj_weight",
    "attn.qkv.bias": "self_attention.in_proj_bias",
    "attn.proj.weight": "self_attention.out_proj.weight",
    "attn.proj.bias": "self_attention.out_proj.bias",
    "norm2.weight": "ln_2.weight",
    "norm2.bias": "ln_2.bias",
    "mlp.fc1.weight": "mlp.0.weight",
    "mlp.fc1.bias": "mlp.0.bias",
    "mlp.fc2.weight": "mlp.3.weight",
    "mlp.fc2.bias": "mlp.3.bias",
}
_BLOCK_KEY = re.compile(r"blocks\.(\d+)\.(.+)")


def build_dino(input_size: int, num_classes: int) -> nn.Module:
    """Return the small ViT of "Emerging Properties in Self-Supervised Vision Transformers"."""
    net = VisionTransformer(
        image_size=input_size,
        patch_size=PATCH,
        num_layers=12,
        num_heads=6,
        hidden_dim=384,
        mlp_dim=1536,
        num_classes=num_classes,
    )
    return cast(nn.Module, net)


def torchvision_keys(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the official checkpoint's keys to torchvision's; unknown ones stay as they are."""
    return {_torchvision_key(key): tensor for key, tensor in state.items()}


def _torchvision_key(key: str) -> str:
    block = _BLOCK_KEY.fullmatch(key)
    if block and block[2] in _BLOCK:
        return f"encoder.layers.encoder_layer_{block[1]}.{_BLOCK[block[2]]}"
    return _TOP.get(key, key)
