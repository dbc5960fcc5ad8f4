import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from zdm_ml.errors import TrainingError
from zdm_ml.models import zoo
from zdm_ml.models.transfer import apply_transfer
from zdm_ml.params import AugmentParams, Recipe, TrainParams
from zdm_ml.training.loop import EpochRecord, TrainResult, train

CPU = torch.device("cpu")
RECIPE = Recipe(learning_rate=3e-3, weight_decay=0.0, epochs=3, gamma=0.5)
PARAMS = TrainParams(
    weights="none",
    device="cpu",
    precision="auto",
    batch_size=8,
    mean=0.5,
    std=0.25,
    augment=AugmentParams(0.5, 0.3, 2.5, 0.05, [0.95, 1.05], 0.2),
    finetune=RECIPE,
    scratch=RECIPE,
)


def blobs(count: int, seed: int, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Noise, with a dark spot where the target is 1."""
    rng = np.random.default_rng(seed)
    targets = (np.arange(count) % 2).astype(np.int64)
    images = rng.integers(120, 200, (count, size, size), dtype=np.uint8)
    images[targets == 1, 6:10, 6:10] = 0
    return images, targets


class Tiny(nn.Sequential):
    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(8, 2),
        )


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Tiny()


def run(net: nn.Module, recipe: Recipe = RECIPE, count: int = 33, **options: object) -> TrainResult:
    settings = {"params": PARAMS, "seed": 5, "device": CPU, **options}
    return train("tiny", net, *blobs(count, 1), *blobs(10, 2), recipe=recipe, **settings)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class KilledError(Exception):
    pass


def test_train_learns_what_tells_the_classes_apart() -> None:
    net = tiny()

    result = run(net, replace(RECIPE, epochs=8, gamma=1.0, learning_rate=3e-2))

    assert result.history[result.best_epoch - 1].val_accuracy == 1.0
    assert result.history[-1].train_loss < result.history[0].train_loss


def test_train_twice_gives_the_same_bits() -> None:
    first, second = tiny(), tiny()

    histories = [run(first).history, run(second).history]

    assert same_weights(first, second)
    assert [r.train_loss for r in histories[0]] == [r.train_loss for r in histories[1]]


def test_another_seed_gives_another_net() -> None:
    first, second = tiny(), tiny()

    run(first, seed=5)
    run(second, seed=6)

    assert not same_weights(first, second)


def test_train_leaves_the_best_epoch_in_the_net() -> None:
    reference, net = tiny(), tiny()
    # The second epoch's rate destroys what the first has learnt.
    worse = replace(RECIPE, epochs=2, gamma=1e4)

    run(reference, replace(worse, epochs=1))
    result = run(net, worse)

    assert result.best_epoch == 1
    assert same_weights(reference, net)


def test_learning_rate_falls_by_gamma_per_epoch() -> None:
    result = run(tiny())

    assert [record.learning_rate for record in result.history] == [3e-3, 1.5e-3, 7.5e-4]


@pytest.mark.parametrize("finished", [1, 2])
def test_resumed_training_ends_with_the_same_bits(tmp_path: Path, finished: int) -> None:
    whole, resumed, seen = tiny(), tiny(), []

    def stop(record: EpochRecord) -> None:
        if record.epoch == finished:
            raise KilledError

    uninterrupted = run(whole)
    with pytest.raises(KilledError):
        run(tiny(), checkpoint=tmp_path / "c.pt", on_epoch=stop)
    result = run(resumed, checkpoint=tmp_path / "c.pt", on_epoch=seen.append)

    assert same_weights(whole, resumed)
    assert result.resumed_after == finished
    assert result.best_epoch == uninterrupted.best_epoch
    assert [r.val_loss for r in result.history] == [r.val_loss for r in uninterrupted.history]
    assert [record.epoch for record in seen] == list(range(finished + 1, 4))


def test_resume_is_exact_for_a_real_net(tmp_path: Path) -> None:
    name = "luna"
    recipe = replace(RECIPE, epochs=2, learning_rate=1e-4)
    nets = []
    for attempt in range(3):
        torch.manual_seed(3)
        net = zoo.build(name, 32, 2)
        apply_transfer(name, net, "full")
        nets.append(net)
        arguments = (name, net, *blobs(12, 1, 32), *blobs(4, 2, 32))
        options = {"recipe": recipe, "params": PARAMS, "seed": 5, "device": CPU}

        def stop(record: EpochRecord) -> None:
            raise KilledError

        if attempt == 0:
            train(*arguments, **options)
        elif attempt == 1:
            with pytest.raises(KilledError):
                train(*arguments, **options, checkpoint=tmp_path / "c.pt", on_epoch=stop)
        else:
            train(*arguments, **options, checkpoint=tmp_path / "c.pt")

    assert same_weights(nets[0], nets[2])


SCRIPT = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {folder!r})
    import test_loop as t
    slow = lambda record: (print(record.epoch, flush=True), time.sleep(60))
    t.run(t.tiny(), checkpoint=Path(sys.argv[1]), on_epoch=slow)
"""


def test_training_killed_from_outside_goes_on_at_its_epoch(tmp_path: Path) -> None:
    script = textwrap.dedent(SCRIPT.format(folder=str(Path(__file__).parent)))
    command = [sys.executable, "-c", script, str(tmp_path / "c.pt")]
    whole, resumed, seen = tiny(), tiny(), []
    run(whole)

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        first = victim.stdout.readline()
        os.kill(victim.pid, signal.SIGKILL)
    run(resumed, checkpoint=tmp_path / "c.pt", on_epoch=seen.append)

    assert victim.returncode == -signal.SIGKILL
    assert first.split() == ["1"]
    assert [record.epoch for record in seen] == [2, 3]
    assert same_weights(whole, resumed)


def test_finished_checkpoint_trains_nothing(tmp_path: Path) -> None:
    first, second = tiny(), tiny(seed=9)
    run(first, checkpoint=tmp_path / "c.pt")

    result = run(second, checkpoint=tmp_path / "c.pt")

    assert result.resumed_after == 3
    assert same_weights(first, second)


@pytest.mark.filterwarnings("error")
def test_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    run(tiny(), checkpoint=tmp_path / "c.pt")

    result = run(tiny(), checkpoint=tmp_path / "c.pt", seed=6)

    assert result.resumed_after == 0


def test_frozen_parts_keep_weights_and_statistics() -> None:
    torch.manual_seed(0)
    net = zoo.build("resnet18", 32, 2)
    apply_transfer("resnet18", net, "feature_extraction")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    data = (*blobs(9, 1, 32), *blobs(4, 2, 32))

    train("resnet18", net, *data, recipe=RECIPE, params=PARAMS, seed=5, device=CPU)

    changed = {
        key for key, value in net.state_dict().items() if not torch.equal(before[key], value)
    }
    assert changed == {"fc.weight", "fc.bias"}


def test_loss_that_is_not_finite_names_model_and_epoch() -> None:
    with pytest.raises(TrainingError, match="tiny: the .* loss became nan in epoch 1") as raised:
        run(tiny(), replace(RECIPE, learning_rate=float("1e38")))

    assert "learning_rate" in raised.value.hint


def test_broken_training_leaves_the_checkpoint_of_the_last_good_epoch(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="epoch 2"):
        run(tiny(), replace(RECIPE, gamma=1e38), checkpoint=tmp_path / "c.pt")

    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    assert len(saved["history"]) == 1


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_are_refused(count: int) -> None:
    with pytest.raises(TrainingError, match=f"{count} images to train on"):
        run(tiny(), count=count)


def test_all_frozen_is_refused() -> None:
    with pytest.raises(TrainingError, match="every parameter is frozen"):
        run(tiny().requires_grad_(False))


def test_progress_ends_each_epoch_and_stays_below_five_per_second() -> None:
    steps: list[tuple[int, int, int]] = []
    started = time.monotonic()

    run(tiny(), on_step=lambda done, total, epoch: steps.append((done, total, epoch)))

    assert [step for step in steps if step[0] == step[1]] == [(33, 33, 1), (33, 33, 2), (33, 33, 3)]
    assert len(steps) <= 3 + 5 * (time.monotonic() - started)


def test_bf16_trains_on_a_cpu_when_asked() -> None:
    params = replace(PARAMS, precision="bf16")

    result = run(tiny(), params=params)

    assert len(result.history) == 3


def test_torch_settings_are_as_before() -> None:
    run(tiny())

    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
