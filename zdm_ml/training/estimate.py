"""How long a training will take on this machine's CPU, from steps timed on it in a few seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from zdm_ml.evaluation.flops import flops
from zdm_ml.models import zoo
from zdm_ml.models.transfer import apply_transfer, train_mode

# Batch normalisation needs two where the last map is a single pixel.
_IMAGES = 2
# A step with gradient costs about three forward passes.
_FORWARD_SHARE = 1 / 3
# How much n threads do at once: n to this power.
_SCALING = 0.9


@dataclass(frozen=True)
class Job:
    """One training to estimate: `images` and `val_images` are seen once per epoch."""

    model_name: str
    input_size: int
    transfer: str
    epochs: int
    images: int
    val_images: int
    batch_size: int
    recipe: str = "reference"


@dataclass(frozen=True)
class _Cost:
    """Seconds of one core per image with gradient, and per step of the optimizer."""

    image: float
    step: float


def estimate_seconds(jobs: Sequence[Job], *, budget: float = 8.0) -> dict[str, float]:
    """Return the seconds of each job's training with torch's current number of threads.

    One small step of each net is timed on one core, cheapest first, in that core's own seconds,
    so that other programs do not count: the answer is for a machine with nothing else to do.
    What does not fit in `budget` seconds is put at the median speed of the nets timed, its own
    family's if there is one. Right within a factor of two; rather too long than too short, as
    the steps are cold. That the features of a frozen trunk are cached is not counted on.
    """
    work = {job.model_name: flops(job.model_name, job.input_size, job.recipe) for job in jobs}
    speedup = torch.get_num_threads() ** _SCALING
    costs = _costs(sorted(jobs, key=lambda job: work[job.model_name]), work, budget)
    return {job.model_name: _total(job, costs[job.model_name]) / speedup for job in jobs}


def _costs(jobs: Sequence[Job], work: Mapping[str, int], budget: float) -> dict[str, _Cost]:
    started = time.perf_counter()
    costs: dict[str, _Cost] = {}
    pace = 0.0
    with one_thread():
        for job in jobs:
            before = time.perf_counter()
            if before - started + pace * work[job.model_name] > budget:
                break
            costs[job.model_name] = _time_step(job)
            pace = (time.perf_counter() - before) / work[job.model_name]
    rest = [job.model_name for job in jobs if job.model_name not in costs]
    return costs | {name: _extrapolate(name, costs, work) for name in rest}


def _extrapolate(name: str, costs: Mapping[str, _Cost], work: Mapping[str, int]) -> _Cost:
    family = zoo.architecture(name).family
    kin = [known for known in costs if zoo.architecture(known).family == family] or list(costs)
    speed = statistics.median(work[known] / costs[known].image for known in kin)
    return _Cost(work[name] / speed, 0.0)


def _total(job: Job, cost: _Cost) -> float:
    steps = -(-job.images // job.batch_size)
    validation = job.val_images * cost.image * _FORWARD_SHARE
    return job.epochs * (job.images * cost.image + steps * cost.step + validation)


def _time_step(job: Job) -> _Cost:
    net = _net(job)
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trainable, fused=True)
    pixels = torch.rand(_IMAGES, 1, job.input_size, job.input_size).expand(-1, 3, -1, -1)
    targets = torch.zeros(_IMAGES, dtype=torch.int64)
    started = time.thread_time()
    loss = functional.cross_entropy(net(pixels), targets)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    learnt = time.thread_time()
    optimizer.step()
    return _Cost((learnt - started) / _IMAGES, time.thread_time() - learnt)


def _net(job: Job) -> nn.Module:
    # Random weights would take longer to draw than the step to run; small ones alike do as well.
    with torch.device("meta"):
        net = zoo.build(job.model_name, job.input_size, recipe=job.recipe)
    net.to_empty(device="cpu")
    for tensor in net.state_dict().values():
        tensor.fill_(1e-2 if tensor.is_floating_point() else 0)
    apply_transfer(job.model_name, net, job.transfer)
    train_mode(net)
    return net


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
