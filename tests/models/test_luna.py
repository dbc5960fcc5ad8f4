import torch

from zdm_ml.models.luna import Luna


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
