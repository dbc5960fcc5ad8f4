import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import PLAIN
from torch import nn

from zdm_ml.recipes import Recipe
from zdm_ml.training.optimization import MovingAverage, make_optimizer, make_scheduler

ONE_CYCLE = replace(PLAIN, schedule="one_cycle", learning_rate=0.4)


def rates(recipe: Recipe, steps: int) -> list[float]:
    """Return the learning rate of every step of a training, and the one after it."""
    optimizer = make_optimizer(nn.Linear(1, 1), recipe)
    scheduler = make_scheduler(optimizer, recipe, steps)
    found = [scheduler.get_last_lr()[0]]
    for _ in range(recipe.epochs * steps):
        optimizer.step()
        scheduler.step()
        found.append(scheduler.get_last_lr()[0])
    return found


def test_exponential_changes_the_rate_after_each_epoch_alone() -> None:
    found = rates(replace(PLAIN, learning_rate=1.0, gamma=0.5, epochs=3), 2)

    assert found == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_one_cycle_peaks_after_a_fifth_and_ends_near_zero() -> None:
    found = rates(replace(ONE_CYCLE, epochs=10), 10)

    peak = found.index(max(found))
    assert max(found) == pytest.approx(0.4, rel=1e-3)
    assert 19 <= peak <= 20
    assert found[:peak] == sorted(found[:peak])
    assert found[peak:] == sorted(found[peak:], reverse=True)
    assert found[-2] < 1e-3 * 0.4 and found[-1] < 1e-4 * 0.4


@settings(deadline=None)  # other programs may hold the CPU
@given(st.integers(1, 12), st.integers(1, 12))
def test_one_cycle_fits_a_training_of_any_length(epochs: int, steps: int) -> None:
    found = rates(replace(ONE_CYCLE, epochs=epochs), steps)

    assert len(found) == epochs * steps + 1
    assert all(0 < rate <= 0.4 for rate in found)


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW")])
def test_the_optimizer_is_the_recipes(name: str, kind: str) -> None:
    recipe = replace(PLAIN, optimizer=name, weight_decay=0.25)

    optimizer = make_optimizer(nn.Linear(3, 2), recipe)

    assert type(optimizer).__name__ == kind
    assert optimizer.defaults["lr"] == recipe.learning_rate
    assert optimizer.defaults["weight_decay"] == 0.25


def test_adamw_decays_weights_whose_gradient_is_zero_and_adam_with_none_does_not() -> None:
    nets = {"adam": nn.Linear(3, 2), "adamw": nn.Linear(3, 2)}
    before = {name: net.weight.detach().clone() for name, net in nets.items()}

    for name, net in nets.items():
        decay = 0.5 if name == "adamw" else 0.0
        recipe = replace(PLAIN, optimizer=name, weight_decay=decay, learning_rate=0.1)
        net.weight.grad, net.bias.grad = torch.zeros(2, 3), torch.zeros(2)
        make_optimizer(net, recipe).step()

    assert nets["adam"].weight.equal(before["adam"])
    torch.testing.assert_close(nets["adamw"].weight.detach(), before["adamw"] * 0.95)


def test_what_is_frozen_is_not_given_to_the_optimizer() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    net[0].requires_grad_(False)

    optimizer = make_optimizer(net, PLAIN)

    (group,) = optimizer.param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(p) for p in net[1].parameters()]


def filled(value: float) -> nn.Linear:
    net = nn.Linear(2, 1)
    nn.init.constant_(net.weight, value)
    nn.init.constant_(net.bias, value)
    return net


def test_the_decay_grows_to_its_value() -> None:
    decays = []
    for step in (1, 10, 90, 10_000):
        average = MovingAverage(filled(0.0), 0.9)
        average.update(filled(1.0), step)
        decays.append(1 - average.net.weight[0, 0].item())

    assert decays == pytest.approx([1 / 11, 0.5, 0.9, 0.9], abs=1e-6)


def test_the_average_follows_weights_that_stay() -> None:
    average = MovingAverage(filled(0.0), 0.9)

    for step in range(1, 200):
        average.update(filled(3.0), step)

    torch.testing.assert_close(average.net.bias, torch.tensor([3.0]))


def test_batch_statistics_are_averaged_and_counts_are_taken_over() -> None:
    net = nn.BatchNorm1d(1)
    average = MovingAverage(net, 0.9)
    nn.init.constant_(net.running_mean, 2.0)
    net.num_batches_tracked.fill_(7)

    average.update(net, 10)

    assert average.net.running_mean.item() == pytest.approx(1.0)
    assert average.net.num_batches_tracked.item() == 7


def test_the_average_is_a_net_of_its_own_that_is_never_trained() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
    before = copy.deepcopy(net.state_dict())

    average = MovingAverage(net, 0.9)
    nn.init.zeros_(net[0].weight)

    assert net.training and all(parameter.requires_grad for parameter in net.parameters())
    assert not any(module.training for module in average.net.modules())
    assert not any(parameter.requires_grad for parameter in average.net.parameters())
    assert average.net[0].weight.equal(before["0.weight"])


def test_what_is_frozen_stays_the_same_in_the_average() -> None:
    net = filled(0.1)
    average = MovingAverage(net, 0.7)

    for step in range(1, 30):
        average.update(net, step)

    assert average.net.weight.equal(net.weight)
