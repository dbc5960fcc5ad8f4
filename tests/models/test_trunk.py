import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from zdm_ml.errors import TrainingError
from zdm_ml.models import zoo
from zdm_ml.models.luna import Luna, ModernLuna
from zdm_ml.models.transfer import apply_transfer, train_mode
from zdm_ml.models.trunk import SplitNet, UncuttableError, split_net

STRATEGIES = ("partial", "feature_extraction")


@pytest.fixture(scope="module", params=zoo.MODEL_NAMES)
def whole(request: pytest.FixtureRequest) -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    """A net, its name and two images of a size that it takes."""
    name = request.param
    size = max(32, zoo.architecture(name).smallest)
    torch.manual_seed(0)
    net = zoo.build(name, size)
    # A vision transformer's head begins with zeros, which would hide any difference before it.
    nn.init.normal_(net.get_submodule(zoo.architecture(name).head).weight)
    yield name, net, torch.rand(2, 3, size, size)


def cut(name: str, net: nn.Module, strategy: str) -> SplitNet:
    apply_transfer(name, net, strategy)
    net.zero_grad(set_to_none=True)
    return split_net(name, net, strategy)


def luna(strategy: str) -> tuple[nn.Module, SplitNet]:
    torch.manual_seed(0)
    net = zoo.build("luna", 32)
    return net, cut("luna", net, strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tail_after_trunk_is_the_net_in_eval_mode_bit_for_bit(whole, strategy: str):
    name, net, images = whole
    split = cut(name, net.eval(), strategy)

    with torch.no_grad():
        features, logits = split.trunk(images), net(images)
        again = split.tail(features)

    assert torch.equal(again, logits)
    assert logits.abs().max() > 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tail_after_trunk_is_the_net_in_training_mode_too(whole, strategy: str):
    name, net, images = whole
    if (name, strategy) == ("alexnet", "feature_extraction"):
        pytest.skip("its dropout between frozen layers rests: a test of its own")
    split = cut(name, net, strategy)

    train_mode(net)
    torch.manual_seed(1)
    expected = net(images)
    train_mode(split.tail)
    with torch.no_grad():
        features = split.trunk.eval()(images)
    torch.manual_seed(1)
    again = split.tail(features)

    assert torch.equal(again, expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradients_reach_exactly_the_nets_own_trainable_parameters(whole, strategy: str):
    name, net, images = whole
    split = cut(name, net, strategy)

    train_mode(split.tail)
    split.tail(split.features(images)).square().sum().backward()

    own = dict(net.named_parameters())
    reached = {key for key, parameter in own.items() if parameter.grad is not None}
    assert reached == {key for key, parameter in own.items() if parameter.requires_grad}
    assert all(own[key] is parameter for key, parameter in split.tail.named_parameters())
    assert reached == {key for key, _ in split.tail.named_parameters()}


def test_a_trained_tail_is_in_the_nets_weights_and_the_trunk_is_as_it_was():
    net, split = luna("partial")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    features = split.features(torch.rand(4, 3, 32, 32))

    train_mode(split.tail)
    split.tail(features)[:, 0].sum().backward()
    torch.optim.SGD(split.tail.parameters(), 0.1).step()

    changed = {key for key, value in net.state_dict().items() if not value.equal(before[key])}
    assert changed and all(key.startswith(("blocks.3.", "head.")) for key in changed)


def test_weights_of_the_tail_alone_bring_the_net_back():
    net, split = luna("feature_extraction")
    best = {key: value.clone() for key, value in split.tail.state_dict().items()}
    images = torch.rand(2, 3, 32, 32)
    expected = net.eval()(images)

    nn.init.zeros_(net.head.weight)
    split.tail.load_state_dict(best)

    assert torch.equal(net(images), expected)


def test_a_copied_tail_is_a_net_of_its_own():
    net, split = luna("partial")
    features = split.features(torch.rand(2, 3, 32, 32))
    expected = split.tail(features)

    average = copy.deepcopy(split.tail)
    nn.init.zeros_(net.head.weight)

    assert torch.equal(average(features), expected)


def test_dropout_between_frozen_layers_rests():
    net = zoo.build("alexnet", 63)
    split = cut("alexnet", net, "feature_extraction")
    images = torch.rand(2, 3, 63, 63)

    train_mode(net)
    features = split.features(images)

    assert torch.equal(split.features(images), features)
    assert not net.get_submodule("classifier.0").training


def test_dropout_right_before_the_head_is_trained_with():
    net = zoo.build("efficientnet_v2_s", 32)
    split = cut("efficientnet_v2_s", net, "feature_extraction")
    features = torch.rand(2, 1280)

    train_mode(split.tail)
    passes = [split.tail(features.clone()) for _ in range(2)]

    assert not torch.equal(*passes)


def test_a_cut_leaves_every_module_in_its_mode():
    net = zoo.build("luna", 32)
    apply_transfer("luna", net, "partial")
    train_mode(net)
    before = [module.training for module in net.modules()]

    split_net("luna", net, "partial")

    assert [module.training for module in net.modules()] == before


def test_digest_follows_the_trunks_weights_and_not_the_tails():
    net, split = luna("feature_extraction")
    digest = split.trunk_digest()

    nn.init.zeros_(net.head.weight)
    assert split.trunk_digest() == digest

    net.norm.running_mean += 1
    assert split.trunk_digest() != digest


def test_a_strategy_that_freezes_no_trunk_is_refused():
    net = zoo.build("luna", 32)

    with pytest.raises(TrainingError, match="transfer 'full' freezes no trunk"):
        split_net("luna", net, "full")


def test_a_trunk_that_still_learns_is_refused():
    net = zoo.build("luna", 32)

    with pytest.raises(TrainingError, match=r"norm\.weight is not frozen"):
        split_net("luna", net, "partial")


def test_a_net_that_does_something_else_in_training_is_not_cut():
    net = ModernLuna(32, 2)
    apply_transfer("luna", net, "feature_extraction")

    with pytest.raises(UncuttableError, match="in training it does something else"):
        split_net("luna", net, "feature_extraction")


def test_a_net_whose_tail_sees_the_images_is_not_cut():
    class Skipping(Luna):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) + images.mean()

    net = Skipping(32, 2)
    apply_transfer("luna", net, "partial")

    with pytest.raises(UncuttableError, match=r"what follows .* needs the images as well"):
        split_net("luna", net, "partial")
