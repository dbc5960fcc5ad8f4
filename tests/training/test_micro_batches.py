"""A device that is short of memory is played by a net that refuses batches above a size."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recipes import PLAIN, RICH
from torch import nn
from torch.nn import functional

from zdm_ml.errors import TrainingError
from zdm_ml.recipes import Recipe
from zdm_ml.training.loop import TrainResult, train
from zdm_ml.training.micro_batches import MicroBatches
from zdm_ml.training.sides import Side, make_side
from zdm_ml.training.steps import Classifier, Ticker, train_one_epoch, validate

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def noise(count: int, seed: int, size: int = 16) -> Side:
    rng = np.random.default_rng(seed)
    targets = (np.arange(count) % 2).astype(np.int64)
    return make_side(rng.integers(0, 256, (count, size, size), dtype=np.uint8), targets)


class Tight(nn.Module):
    """A net without batch norm that holds `room` images when it learns, `seats` when it judges.

    It remembers the size of every pass, refused ones as well.
    """

    def __init__(self, room: int = 1000, seats: int = 1000, *, normed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8) if normed else nn.Identity()
        self.head = nn.Linear(8, 2)
        self.room, self.seats = room, seats
        self.passes: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.norm(self.first(images))
        self.passes.append(len(images))
        if len(images) > (self.room if self.training else self.seats):
            raise torch.OutOfMemoryError("CUDA out of memory")
        logits: torch.Tensor = self.head(maps.relu().amax((2, 3)))
        return logits


def run(net: nn.Module, recipe: Recipe = PLAIN, count: int = 33, **options: Any) -> TrainResult:
    settings: dict[str, Any] = {"precision": "fp32", "seed": 5, "device": CPU, **options}
    return train("tight", net, noise(count, 1), noise(10, 2), recipe=recipe, **settings)


def classifier(net: nn.Module) -> Classifier:
    return Classifier("tight", net, CPU, "fp32", 16, 0.5, 0.25, False)


def step(net: nn.Module, images: np.ndarray, targets: np.ndarray, micro: MicroBatches) -> float:
    """Leave the gradient of one batch's mean loss in the net and return that loss."""
    ticker = Ticker(lambda done, total, epoch: None, len(targets), 1)
    batches = iter([(images, targets)])
    return train_one_epoch(classifier(net), batches, lambda: None, ticker, micro=micro)


def batch(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((count, 16, 16), dtype=np.float32), np.arange(count) % 2


def watch(maps: torch.Tensor, hook: Callable[[torch.Tensor], None]) -> None:
    maps.register_hook(hook)


def gradients(net: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


def assert_same_weights(one: nn.Module, other: nn.Module, tolerance: float = 1e-5) -> None:
    for key, tensor in one.state_dict().items():
        torch.testing.assert_close(
            other.state_dict()[key],
            tensor,
            rtol=0,
            atol=tolerance,
            msg=lambda text, k=key: k + text,
        )


@given(images=st.integers(1, 200), limit=st.one_of(st.none(), st.integers(1, 70)))
def test_parts_cover_a_batch_once_and_are_as_equal_as_can_be(
    images: int, limit: int | None
) -> None:
    parts = MicroBatches("net", limit=limit).parts(images)

    shown = [at for part in parts for at in range(part.start, part.stop)]
    sizes = [part.stop - part.start for part in parts]
    assert shown == list(range(images))
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) == (1 if limit is None else -(-images // limit))


@pytest.mark.parametrize("room", [1, 2, 3, 5, 7])
def test_the_gradient_in_parts_is_the_one_of_the_whole_batch(room: int) -> None:
    whole, tight = Tight(), Tight(room)

    losses = [step(net, *batch(7), MicroBatches("tight")) for net in (whole, tight)]

    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    for expected, found in zip(gradients(whole), gradients(tight), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_gradient_is_the_one_accumulated_by_hand() -> None:
    tight, by_hand = Tight(3), Tight()
    images, targets = batch(7)

    step(tight, images, targets, MicroBatches("tight"))
    for part in (slice(0, 2), slice(2, 4), slice(4, 7)):
        pixels = torch.from_numpy(images[part]).unsqueeze(1).expand(-1, 3, -1, -1)
        loss = functional.cross_entropy(by_hand(pixels), torch.from_numpy(targets[part]))
        (loss * len(targets[part]) / 7).backward()

    for expected, found in zip(gradients(by_hand), gradients(tight), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("recipe", [PLAIN, RICH], ids=["reference", "modern"])
def test_a_training_short_of_memory_ends_with_the_weights_of_one_that_is_not(
    recipe: Recipe,
) -> None:
    whole, tight = Tight(), Tight(3, 2)

    expected = run(whole, recipe)
    found = run(tight, recipe)

    assert_same_weights(whole, tight)
    for one, other in zip(expected.history, found.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, abs=1e-5)
        assert other.val_loss == pytest.approx(one.val_loss, abs=1e-5)
        assert other.val_accuracy == one.val_accuracy


def test_memory_runs_short_once_and_the_smaller_size_stays() -> None:
    net = Tight(3, 6)

    run(net, replace(PLAIN, epochs=2), count=24)

    learning = [8, 4, 2, 2, 2, 2, *[2, 2, 2, 2] * 2]
    later = [2] * 4 * 3
    assert net.passes == [*learning, 10, 5, 5, *later, 5, 5]


def test_memory_that_runs_short_in_the_backward_pass_leaves_no_gradient_of_the_failed_try() -> None:
    """The head's gradient is there already when the first layer's does not fit."""
    whole, tight = Tight(), Tight()
    backward: list[int] = []

    def refuse(gradient: torch.Tensor) -> None:
        backward.append(len(gradient))
        if len(gradient) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    tight.first.register_forward_hook(lambda module, inputs, maps: watch(maps, refuse))
    for net in (whole, tight):
        step(net, *batch(7), MicroBatches("tight"))

    assert backward == [7, 2, 2, 3]
    for expected, found in zip(gradients(whole), gradients(tight), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_failed_try_leaves_the_optimizer_as_it_was() -> None:
    """Adam's first step has a length of its own: a second one counted would show at once."""
    whole, tight = Tight(), Tight(4)
    once = replace(PLAIN, epochs=1, batch_size=24)

    for net in (whole, tight):
        run(net, once, count=24)

    assert_same_weights(whole, tight, 1e-6)


@pytest.mark.parametrize(("normed", "said"), [(True, True), (False, False)])
def test_one_warning_names_the_model_and_the_size_and_what_batch_norm_sees(
    normed: bool, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    net = Tight(4, normed=normed)

    with caplog.at_level(logging.WARNING):
        run(net, replace(PLAIN, epochs=2))

    (message,) = [record.getMessage() for record in caplog.records]
    assert "tight" in message
    assert "4 images at once" in message
    assert ("batch norm" in message) is said
    assert "\n" not in message


def test_a_single_image_that_does_not_fit_ends_the_training_with_a_hint() -> None:
    with pytest.raises(TrainingError, match="1 image at once") as failure:
        run(Tight(0))

    assert "models.tight.input_size" in failure.value.hint
    assert "train.device" in failure.value.hint


def test_a_process_that_others_wait_for_does_not_try_again() -> None:
    net = Tight(4)

    with pytest.raises(TrainingError, match="7 images at once") as failure:
        step(net, *batch(7), MicroBatches("tight", alone=False))

    assert net.passes == [7]
    assert "more processes" in failure.value.hint


def test_an_optimizer_that_does_not_fit_ends_the_training() -> None:
    def update() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    ticker = Ticker(lambda done, total, epoch: None, 7, 1)

    with pytest.raises(TrainingError, match="tight: out of memory"):
        train_one_epoch(
            classifier(Tight()), iter([batch(7)]), update, ticker, micro=MicroBatches("tight")
        )


@pytest.mark.parametrize("seats", [1, 5, 64])
def test_validation_in_parts_finds_what_whole_batches_find(seats: int) -> None:
    side, net = noise(150, 4), Tight(seats=seats)
    expected = validate(classifier(Tight()), side, 1)

    found = validate(classifier(net), side, 1)

    assert found[0] == pytest.approx(expected[0], abs=1e-6)
    assert found[1] == expected[1]


def test_what_fails_otherwise_is_not_tried_again() -> None:
    calls: list[int] = []

    def work(parts: Any) -> None:
        calls.append(len(parts))
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        MicroBatches("tight").run(Tight(), 8, work)

    assert calls == [1]


def test_the_tensors_of_a_failed_try_are_gone_before_the_next() -> None:
    """Otherwise the second try would run out of memory because of the first."""
    alive: list[weakref.ref[torch.Tensor]] = []

    def work(parts: Any) -> int:
        assert all(reference() is None for reference in alive)
        activations = torch.zeros(4)
        alive.append(weakref.ref(activations))
        if len(parts) < 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return len(parts)

    assert MicroBatches("tight").run(Tight(), 8, work) == 4
    assert len(alive) == 3
