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
from recipes import PLAIN, RICH, STILL
from torch import nn

from zdm_ml.data.augment import Augmenter
from zdm_ml.errors import TrainingError
from zdm_ml.models import zoo
from zdm_ml.models.transfer import apply_transfer
from zdm_ml.recipes import Recipe
from zdm_ml.training.loop import CURVE_IMAGES, Curve, EpochRecord, TrainResult, train
from zdm_ml.training.sides import Side, make_side

CPU = torch.device("cpu")
SETTINGS = {"precision": "fp32", "seed": 5, "device": CPU}

RECIPES = {
    "reference": PLAIN,
    "modern": RICH,
    "averaging": replace(PLAIN, averaging=0.9),
    "one_cycle": replace(PLAIN, schedule="one_cycle"),
    "castings": replace(PLAIN, sampling="castings", images_per_epoch=20),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def blobs(count: int, seed: int, size: int = 16) -> Side:
    """Noise, with a dark spot where the target is 1; three images in a row are a casting's."""
    rng = np.random.default_rng(seed)
    targets = (np.arange(count) % 2).astype(np.int64)
    images = rng.integers(120, 200, (count, size, size), dtype=np.uint8)
    images[targets == 1, 6:10, 6:10] = 0
    return make_side(images, targets, np.arange(count) // 6 * 2 + targets)


def contrary() -> Side:
    """Images whose targets are the opposite of what they show: who learns judges them worse."""
    side = blobs(10, 2)
    return replace(side, targets=1 - side.targets)


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


def run(
    net: nn.Module,
    recipe: Recipe = PLAIN,
    count: int = 33,
    judge: Side | Curve | None = None,
    **options: object,
) -> TrainResult:
    settings = {**SETTINGS, **options}
    return train("tiny", net, blobs(count, 1), judge or blobs(10, 2), recipe=recipe, **settings)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def weights(net: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(net.state_dict().items())


def judged_images(net: nn.Module) -> list[int]:
    """Return the sizes of batches that `net` will see in eval mode."""
    seen: list[int] = []

    def look(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if not module.training:
            seen.append(len(inputs[0]))

    net.register_forward_pre_hook(look)
    return seen


class KilledError(Exception):
    pass


def test_train_learns_what_tells_the_classes_apart() -> None:
    net = tiny()

    result = run(net, replace(PLAIN, epochs=8, gamma=1.0, learning_rate=3e-2))

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
    worse = replace(PLAIN, epochs=2, gamma=1.0, learning_rate=1e-2)

    run(reference, replace(worse, epochs=1), judge=contrary())
    result = run(net, worse, judge=contrary())

    assert result.best_epoch == 1
    assert same_weights(reference, net)


def test_learning_rate_falls_by_gamma_per_epoch() -> None:
    result = run(tiny())

    assert [record.learning_rate for record in result.history] == [3e-3, 1.5e-3, 7.5e-4]


def test_keep_last_leaves_the_last_epoch_in_the_net() -> None:
    net = tiny()
    worse = replace(PLAIN, epochs=2, gamma=1.0, learning_rate=1e-2, keep="last")
    states = []

    result = run(
        net,
        worse,
        judge=contrary(),
        on_epoch=lambda _: states.append({k: v.clone() for k, v in weights(net)}),
    )

    assert result.best_epoch == 2
    assert result.history[1].val_loss > result.history[0].val_loss
    assert all(torch.equal(states[1][key], value) for key, value in weights(net))


def test_the_average_is_judged_and_kept() -> None:
    plain, averaged = tiny(), tiny()
    recipe = replace(PLAIN, keep="last", gamma=1.0, learning_rate=3e-2)

    without = run(plain, recipe)
    result = run(averaged, replace(recipe, averaging=0.99))

    # Both take the same steps: an average only looks on.
    assert [r.train_loss for r in result.history] == [r.train_loss for r in without.history]
    assert [r.val_loss for r in result.history] != [r.val_loss for r in without.history]
    assert not same_weights(plain, averaged)


def test_one_cycle_peaks_early_and_ends_low() -> None:
    recipe = replace(PLAIN, schedule="one_cycle", epochs=10)

    rates = [record.learning_rate for record in run(tiny(), recipe).history]

    assert rates[2] == max(rates) == pytest.approx(3e-3, rel=0.02)
    assert rates[0] == pytest.approx(3e-3 / 25)
    assert rates[-1] < 3e-4


@pytest.mark.parametrize(("keep", "images"), [("last", CURVE_IMAGES), ("best", 300)])
def test_an_epoch_that_is_not_chosen_is_judged_on_a_few_images(keep: str, images: int) -> None:
    net = tiny()
    seen = judged_images(net)

    run(net, replace(PLAIN, epochs=2, keep=keep), judge=blobs(300, 2))

    assert sum(seen) == 2 * images


def test_a_curve_of_other_nets_takes_the_place_of_validation() -> None:
    net = tiny()
    seen = judged_images(net)
    curve = Curve([0.5, 0.2, 0.3], [0.6, 0.9, 0.8])

    result = run(net, judge=curve)

    assert [record.val_loss for record in result.history] == curve.losses
    assert [record.val_accuracy for record in result.history] == curve.accuracies
    assert (result.best_epoch, seen) == (2, [])


def test_label_smoothing_keeps_the_training_loss_above_its_entropy() -> None:
    recipe = replace(PLAIN, epochs=12, gamma=1.0, learning_rate=3e-2, augment=STILL)

    results = [run(tiny(), replace(recipe, label_smoothing=share)) for share in (0.0, 0.4)]

    plain, smoothed = (result.history[-1] for result in results)
    entropy = -(0.8 * np.log(0.8) + 0.2 * np.log(0.2))
    assert plain.train_loss < entropy < smoothed.train_loss
    assert smoothed.val_accuracy == 1.0


@pytest.mark.parametrize("paste", [0.0, 0.25, 0.5])
def test_half_of_what_the_net_sees_is_good_whatever_is_pasted(
    monkeypatch: pytest.MonkeyPatch, paste: float
) -> None:
    seen, batch = [], Augmenter.batch

    def watched(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        pixels, targets = batch(*arguments)
        seen.append(targets)
        return pixels, targets

    monkeypatch.setattr(Augmenter, "batch", watched)
    augment = replace(STILL, paste=paste)
    recipe = replace(RICH, images_per_epoch=600, batch_size=60, epochs=1, augment=augment)

    run(tiny(), recipe)

    assert abs(np.concatenate(seen).mean() - 0.5) < 0.06


@pytest.mark.parametrize("finished", [1, 2])
@pytest.mark.parametrize("recipe", RECIPES)
def test_resumed_training_ends_with_the_same_bits(
    tmp_path: Path, recipe: str, finished: int
) -> None:
    whole, resumed, seen = tiny(), tiny(), []

    def stop(record: EpochRecord) -> None:
        if record.epoch == finished:
            raise KilledError

    uninterrupted = run(whole, RECIPES[recipe])
    with pytest.raises(KilledError):
        run(tiny(), RECIPES[recipe], checkpoint=tmp_path / "c.pt", on_epoch=stop)
    result = run(resumed, RECIPES[recipe], checkpoint=tmp_path / "c.pt", on_epoch=seen.append)

    assert same_weights(whole, resumed)
    assert result.resumed_after == finished
    assert result.best_epoch == uninterrupted.best_epoch
    for figure in ("train_loss", "val_loss", "learning_rate"):
        found, expected = (
            [getattr(record, figure) for record in it.history] for it in (result, uninterrupted)
        )
        assert found == expected
    assert [record.epoch for record in seen] == list(range(finished + 1, 4))


@pytest.mark.parametrize("form", ["reference", "modern"])
def test_resume_is_exact_for_a_real_net(tmp_path: Path, form: str) -> None:
    recipe = replace(RECIPES[form], input_size=32, epochs=2, learning_rate=1e-4)
    nets = []
    for attempt in range(3):
        torch.manual_seed(3)
        net = zoo.build("luna", 32, 2, form)
        apply_transfer("luna", net, "full")
        nets.append(net)
        arguments = ("luna", net, blobs(12, 1, 32), blobs(4, 2, 32))
        options = {**SETTINGS, "recipe": recipe}

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
    sys.path[:0] = {folders!r}
    import test_loop as t
    t.torch.set_num_threads(1)
    slow = lambda record: (print(record.epoch, flush=True), time.sleep(60))
    t.run(t.tiny(), t.RICH, checkpoint=Path(sys.argv[1]), on_epoch=slow)
"""


def test_training_killed_from_outside_goes_on_at_its_epoch(tmp_path: Path) -> None:
    folders = [str(folder) for folder in Path(__file__).parents[:2]]
    script = textwrap.dedent(SCRIPT.format(folders=folders))
    command = [sys.executable, "-c", script, str(tmp_path / "c.pt")]
    whole, resumed, seen = tiny(), tiny(), []
    run(whole, RICH)

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        first = victim.stdout.readline()
        os.kill(victim.pid, signal.SIGKILL)
    run(resumed, RICH, checkpoint=tmp_path / "c.pt", on_epoch=seen.append)

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


def test_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    run(tiny(), checkpoint=tmp_path / "c.pt")

    result = run(tiny(), checkpoint=tmp_path / "c.pt", seed=6)

    assert result.resumed_after == 0


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_frozen_parts_keep_weights_and_statistics(averaging: float) -> None:
    torch.manual_seed(0)
    net = zoo.build("resnet18", 32, 2)
    apply_transfer("resnet18", net, "feature_extraction")
    before = {key: value.clone() for key, value in net.state_dict().items()}
    recipe = replace(PLAIN, input_size=32, averaging=averaging)

    train("resnet18", net, blobs(9, 1, 32), blobs(4, 2, 32), recipe=recipe, **SETTINGS)

    changed = {
        key for key, value in net.state_dict().items() if not torch.equal(before[key], value)
    }
    assert changed == {"fc.weight", "fc.bias"}


def test_loss_that_is_not_finite_names_model_and_epoch() -> None:
    with pytest.raises(TrainingError, match="tiny: the .* loss became nan in epoch 1") as raised:
        run(tiny(), replace(PLAIN, learning_rate=float("1e38")))

    assert "learning_rate" in raised.value.hint


def test_broken_training_leaves_the_checkpoint_of_the_last_good_epoch(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="epoch 2"):
        run(tiny(), replace(PLAIN, gamma=1e38), checkpoint=tmp_path / "c.pt")

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


def test_progress_counts_the_draws_of_an_epoch() -> None:
    steps: list[tuple[int, int, int]] = []

    run(tiny(), RICH, on_step=lambda *step: steps.append(step))

    assert [step for step in steps if step[0] == step[1]] == [(30, 30, n) for n in (1, 2, 3)]


def test_bf16_trains_on_a_cpu_when_asked() -> None:
    result = run(tiny(), precision="bf16")

    assert len(result.history) == 3


def test_torch_settings_are_as_before() -> None:
    run(tiny())

    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
