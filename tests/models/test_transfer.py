import pytest
import torch

from zdm_ml.errors import ConfigError
from zdm_ml.models import zoo
from zdm_ml.models.transfer import apply_transfer, train_mode

TRAINABLE = {
    "luna": {"full": 115_088, "partial": 96_898, "feature_extraction": 41_474},
    "alexnet": {"full": 57_012_034, "partial": 55_132_418, "feature_extraction": 8_194},
    "resnet18": {"full": 11_177_538, "partial": 8_394_754, "feature_extraction": 1_026},
    "efficientnet_v2_s": {"full": 20_180_050, "partial": 14_894_634, "feature_extraction": 2_562},
    "convnext_tiny": {"full": 27_821_666, "partial": 15_473_666, "feature_extraction": 1_538},
    "vit_b_16": {"full": 85_800_194, "partial": 14_178_818, "feature_extraction": 1_538},
    "swin_t": {"full": 27_520_892, "partial": 15_369_650, "feature_extraction": 1_538},
    "dino_vits8": {"full": 21_671_042, "partial": 3_550_466, "feature_extraction": 770},
}


@pytest.mark.parametrize("name", zoo.MODEL_NAMES)
def test_trainable_parameters_of_each_strategy(name: str):
    with torch.device("meta"):
        net = zoo.build(name, zoo.architecture(name).reference_size)

    counts = {strategy: apply_transfer(name, net, strategy) for strategy in TRAINABLE[name]}

    assert counts == TRAINABLE[name]


def test_a_frozen_trunk_is_the_same_after_a_step_and_the_head_is_not():
    torch.manual_seed(0)
    net = zoo.build("resnet18", 32)
    apply_transfer("resnet18", net, "feature_extraction")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.Adam(p for p in net.parameters() if p.requires_grad)

    train_mode(net)
    net(torch.rand(4, 3, 32, 32))[:, 0].sum().backward()
    optimizer.step()

    changed = {key for key, value in net.state_dict().items() if not value.equal(before[key])}
    assert changed == {"fc.weight", "fc.bias"}


def test_partial_keeps_batch_statistics_of_frozen_blocks_and_learns_those_of_the_last():
    net = zoo.build("resnet18", 32)
    apply_transfer("resnet18", net, "partial")

    train_mode(net)

    assert not net.get_submodule("layer3").training
    assert net.get_submodule("layer4").training
    assert net.get_submodule("layer4.0.bn1").training


def test_full_trains_every_part():
    net = zoo.build("luna", 32)
    apply_transfer("luna", net, "full")

    train_mode(net.eval())

    assert all(module.training for module in net.modules())


def test_strategies_can_be_changed_on_the_same_net():
    net = zoo.build("luna", 32)
    apply_transfer("luna", net, "feature_extraction")

    trainable = apply_transfer("luna", net, "full")

    assert trainable == sum(parameter.numel() for parameter in net.parameters())


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ConfigError, match="unknown transfer strategy 'half'"):
        apply_transfer("luna", zoo.build("luna", 32), "half")
