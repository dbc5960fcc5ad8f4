import pytest
import torch

from zdm_ml.models.luna import Luna, ModernLuna


@pytest.fixture
def modern() -> ModernLuna:
    """A net whose batch statistics are those of noise, so that every layer shows."""
    torch.manual_seed(0)
    net = ModernLuna(64, 2)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    net(grey(4))
    return net.eval()


def grey(count: int, size: int = 64) -> torch.Tensor:
    return torch.randn(count, 1, size, size).expand(-1, 3, -1, -1)


def test_luna_returns_logits_not_probabilities():
    torch.manual_seed(0)
    net = Luna(64, 2).eval()

    logits = net(torch.randn(4, 3, 64, 64) * 3)

    assert logits.shape == (4, 2)
    assert not torch.allclose(logits.sum(1), torch.ones(4))


def test_luna_normalises_its_three_channel_input():
    net = Luna(32, 2)

    assert isinstance(next(net.children()), torch.nn.BatchNorm2d)
    assert net.norm.num_features == 3


@pytest.mark.parametrize("size", [16, 100, 300])
def test_modern_luna_has_as_many_parameters_at_any_input_size(size: int):
    with torch.device("meta"):
        net = ModernLuna(size, 2)
        logits = net(torch.rand(2, 3, size, size))

    assert sum(parameter.numel() for parameter in net.parameters()) == 148_722 <= 150_000
    assert logits.shape == (2, 2)


@torch.inference_mode()
@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("size", [64, 65])
def test_modern_luna_judges_a_picture_alike_in_four_quarter_turns(
    modern: ModernLuna, size: int, turns: int
):
    images = grey(3, size)

    logits = modern(images.rot90(turns, (2, 3)))

    torch.testing.assert_close(logits, modern(images), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_modern_luna_in_training_looks_once(modern: ModernLuna):
    looks = []
    modern.stem.register_forward_hook(lambda _, inputs, __: looks.append(len(inputs[0])))

    modern(grey(2))
    modern.train()(grey(2))

    assert looks == [4 * 2, 2]


@torch.inference_mode()
def test_modern_luna_looks_at_one_channel(modern: ModernLuna):
    images = grey(2).clone()
    expected = modern(images)
    images[:, 1:] = 7.0

    assert modern(images).equal(expected)


@torch.inference_mode()
def test_modern_luna_sees_a_small_defect_wherever_it_is_and_counts_it_once(modern: ModernLuna):
    """In steps of 16 pixels, a cell of the last maps, and out of reach of the padded border."""
    even = torch.zeros(1, 3, 480, 480)
    images = even.repeat(4, 1, 1, 1)
    for number, row, column in [(0, 144, 144), (1, 320, 144), (2, 144, 320)]:
        for image in (images[number], images[3]):
            image[:, row : row + 6, column : column + 6] = -30.0

    logits = modern(images)

    assert (logits - modern(even)).abs().max() > 1e-3
    torch.testing.assert_close(logits, logits[:1].expand(4, -1), atol=1e-5, rtol=1e-5)
