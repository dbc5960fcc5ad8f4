"""Training one net in several processes: two real ones on a CPU, and what can be told alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parallel_training import DIES, RECIPES, noise, run, small, work
from ports import free_port
from torch import multiprocessing, nn

from zdm_ml.errors import ConfigError
from zdm_ml.settings import load_settings
from zdm_ml.training.batches import Epochs
from zdm_ml.training.parallel import Processes

PROCESSES = 2
GPU = torch.device("cuda")

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def meeting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what they saw; the second has died."""
    folder = tmp_path_factory.mktemp("meeting")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASTER_PORT", str(free_port()))
        patch.setenv("MASTER_ADDR", "127.0.0.1")
        context = multiprocessing.start_processes(
            work, (PROCESSES, folder), PROCESSES, join=False, start_method="spawn"
        )
    assert context is not None
    for process in context.processes:
        process.join()
    assert [process.exitcode for process in context.processes] == [0, DIES]
    return folder


@pytest.fixture(scope="module")
def found(meeting: Path) -> Found:
    """What each process saw of the trainings that both came through."""
    return [torch.load(meeting / f"{rank}.pt") for rank in range(PROCESSES)]


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=0, atol=1e-5)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", RECIPES)
def test_processes_together_find_the_weights_of_one_alone(found: Found, name: str) -> None:
    recipe, count = RECIPES[name]
    net = small()

    alone = run(net, recipe, count)

    for process in found:
        together = process["nets"][name]
        assert_close(net.state_dict(), together["weights"])
        for expected, record in zip(alone.history, together["history"], strict=True):
            for key in ("train_loss", "val_loss", "val_accuracy", "learning_rate"):
                assert record[key] == pytest.approx(getattr(expected, key), abs=1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_every_process_ends_with_the_same_net(found: Found, name: str) -> None:
    weights = [process["nets"][name]["weights"] for process in found]

    assert same(*weights)


def test_with_batch_norm_on_a_cpu_every_process_ends_with_the_leading_ones_net(
    found: Found,
) -> None:
    first, second = (process["normed"] for process in found)

    assert same(first, second)
    assert bool(torch.isfinite(torch.cat([tensor.flatten() for tensor in first.values()])).all())
    assert not torch.equal(first["1.running_mean"], torch.zeros(8))


def test_the_leading_process_alone_reports(found: Found) -> None:
    recipe, count = RECIPES["reference"]

    leading, other = (process["nets"]["reference"] for process in found)

    assert (leading["epochs"], other["epochs"]) == (recipe.epochs, 0)
    assert other["steps"] == []
    assert leading["steps"][-1] == (count, count, recipe.epochs)


def test_images_per_second_are_those_of_all_processes(found: Found) -> None:
    for record in found[0]["nets"]["reference"]["history"]:
        assert record["images_per_second"] * record["seconds"] >= 37


def test_a_resumed_training_ends_with_the_same_bits_in_every_process(found: Found) -> None:
    for process in found:
        resumed = process["resumed"]
        assert resumed["after"] == 1
        assert same(resumed["whole"], resumed["resumed"])


def test_processes_that_would_train_different_things_say_so(found: Found) -> None:
    leading, other = (process["disagreement"] for process in found)

    assert leading == ""
    assert "process 1 would train something else" in other
    assert "ZDM_HOME" in other


def test_a_process_that_dies_ends_the_others_with_its_absence_as_the_reason(meeting: Path) -> None:
    message = (meeting / "0.txt").read_text()

    assert message.startswith("process 0 of 2 lost the others: ")
    assert "by peer" in message.splitlines()[0]
    assert len(message.splitlines()) == 2
    assert "next: the process that ended first says why" in message


@given(images=st.integers(2, 40), batch_size=st.integers(2, 20), count=st.integers(1, 5))
def test_every_image_counts_alike_in_the_mean_of_all_processes_gradients(
    images: int, batch_size: int, count: int
) -> None:
    side = noise(images, 1, size=2)
    shares = [
        Epochs(side, "images", None, batch_size, 3, share=(rank, count)).shares(1)
        for rank in range(count)
    ]

    for number, batch in enumerate(Epochs(side, "images", None, batch_size, 3).order(1)):
        counted = np.zeros(images)
        for rank in range(count):
            own, _ = shares[rank][number]
            weight = Processes(rank, count).weight(len(own), len(batch))
            counted[own] += weight / len(own) / count
        assert np.allclose(counted[batch], 1 / len(batch))
        assert counted.sum() == pytest.approx(1)


@given(images=st.integers(2, 40), batch_size=st.integers(2, 20), count=st.integers(1, 5))
def test_no_process_is_left_with_a_single_image(images: int, batch_size: int, count: int) -> None:
    side = noise(images, 1, size=2)

    for rank in range(count):
        for own, places in Epochs(side, "images", None, batch_size, 3, share=(rank, count)).shares(
            1
        ):
            assert len(own) == len(places) >= 2


def test_each_process_draws_its_own_dropout() -> None:
    seeds = [Processes(rank, 3).seed(5_000_020) % 2**32 for rank in range(3)]

    assert seeds[0] == 5_000_020
    assert len(set(seeds)) == 3


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert Processes(5, 6, local=1).device(GPU) == torch.device("cuda:1")
    assert Processes().device(GPU) == GPU
    assert Processes(1, 2, local=1).device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(ConfigError, match="process 2 of this machine has no GPU"):
        Processes(2, 3, local=2).device(GPU)
    with pytest.raises(ConfigError, match="cuda:1 is one GPU for 2 processes"):
        Processes(0, 2).device(torch.device("cuda:1"))


def test_on_gpus_batch_norm_sees_whole_batches_with_the_parameters_it_had() -> None:
    net = small(normed=True)
    before = {key: value.data_ptr() for key, value in net.named_parameters()}

    synchronised = Processes(0, 2).synchronised(net, GPU)

    assert isinstance(synchronised[1], nn.SyncBatchNorm)
    assert {key: value.data_ptr() for key, value in synchronised.named_parameters()} == before


@pytest.mark.parametrize(("processes", "device"), [(Processes(), "cuda"), (Processes(0, 2), "cpu")])
def test_batch_norm_stays_what_it_is_alone_and_on_a_cpu(processes: Processes, device: str) -> None:
    net = small(normed=True)

    assert processes.synchronised(net, torch.device(device)) is net
    assert type(net[1]) is nn.BatchNorm2d


def test_processes_that_nothing_brought_together_name_what_starts_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)

    with (
        pytest.raises(ConfigError, match="cannot find the others") as failure,
        Processes(0, 2).joined(torch.device("cpu")),
    ):
        pass

    assert "torchrun" in failure.value.hint


def test_settings_take_the_place_among_processes_from_torchrun(tmp_path: Path) -> None:
    place = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}

    settings = load_settings({"ZDM_HOME": str(tmp_path), **place}, tmp_path)

    assert (settings.rank, settings.local_rank, settings.world_size) == (3, 1, 4)


@pytest.mark.parametrize("place", [{}, {"RANK": "3"}, {"RANK": "x", "WORLD_SIZE": "1"}])
def test_without_a_world_size_a_rank_means_nothing(tmp_path: Path, place: dict[str, str]) -> None:
    settings = load_settings({"ZDM_HOME": str(tmp_path), **place}, tmp_path)

    assert (settings.rank, settings.local_rank, settings.world_size) == (0, 0, 1)
