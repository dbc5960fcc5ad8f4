import pytest
import torch
from torch.nn import functional

from zdm_ml.models.dino import build_dino, torchvision_keys

WIDTH, HEADS, LAYERS, PATCH = 384, 6, 12, 8


@pytest.fixture(scope="module")
def official() -> dict[str, torch.Tensor]:
    """Random tensors under the keys and shapes of dino_deitsmall8_pretrain.pth."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 785, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        for name, outputs, inputs in (
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("mlp.fc1", 4 * WIDTH, WIDTH),
            ("mlp.fc2", WIDTH, 4 * WIDTH),
        ):
            shapes[f"blocks.{layer}.{name}.weight"] = (outputs, inputs)
            shapes[f"blocks.{layer}.{name}.bias"] = (outputs,)
        for name in ("norm1", "norm2"):
            shapes[f"blocks.{layer}.{name}.weight"] = (WIDTH,)
            shapes[f"blocks.{layer}.{name}.bias"] = (WIDTH,)
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(shape, generator=generator) * 0.05 for key, shape in shapes.items()}


def handwritten_features(state: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """The class token after the last norm, written from the DINO paper's code, layer by layer."""

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return centred / scale * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def attention(name: str, x: torch.Tensor) -> torch.Tensor:
        n, tokens, _ = x.shape
        qkv = linear(f"{name}.qkv", x).reshape(n, tokens, 3, HEADS, WIDTH // HEADS)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5).softmax(-1)
        return linear(f"{name}.proj", (weights @ value).transpose(1, 2).reshape(n, tokens, WIDTH))

    patches = functional.unfold(images, PATCH, stride=PATCH).transpose(1, 2)
    kernel = state["patch_embed.proj.weight"].flatten(1)
    x = patches @ kernel.T + state["patch_embed.proj.bias"]
    x = torch.cat([state["cls_token"].expand(len(images), -1, -1), x], dim=1) + state["pos_embed"]
    for layer in range(LAYERS):
        block = f"blocks.{layer}"
        x = x + attention(f"{block}.attn", norm(f"{block}.norm1", x))
        hidden = functional.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x)))
        x = x + linear(f"{block}.mlp.fc2", hidden)
    return norm("norm", x)[:, 0]


@torch.inference_mode()
def test_the_mapped_checkpoint_computes_what_the_official_net_computes(
    official: dict[str, torch.Tensor],
):
    net = build_dino(224, 2).eval()
    head = {key: value for key, value in net.state_dict().items() if key.startswith("heads.")}
    net.load_state_dict(torchvision_keys(official) | head)
    net.heads = torch.nn.Identity()
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))

    features = net(images)

    expected = handwritten_features(official, images)
    assert features.std() > 0.01
    torch.testing.assert_close(features, expected, atol=2e-5, rtol=1e-4)


def test_every_official_key_has_a_place_in_our_net(official: dict[str, torch.Tensor]):
    with torch.device("meta"):
        ours = build_dino(224, 2).state_dict()

    mapped = torchvision_keys(official)

    assert set(ours) - set(mapped) == {"heads.head.weight", "heads.head.bias"}
    assert set(mapped) <= set(ours)
    assert all(ours[key].shape == tensor.shape for key, tensor in mapped.items())


def test_an_unknown_key_is_kept_for_the_strict_load_to_refuse():
    assert set(torchvision_keys({"blocks.0.gamma": torch.zeros(1)})) == {"blocks.0.gamma"}
