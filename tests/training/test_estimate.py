from dataclasses import replace

import pytest
import torch

from zdm_ml.models import zoo
from zdm_ml.models.luna import ModernLuna
from zdm_ml.training.estimate import Job, estimate_seconds

LUNA = Job("luna", 64, "full", epochs=2, images=100, val_images=10, batch_size=16)
RESNET = replace(LUNA, model_name="resnet18")
SWIN = replace(LUNA, model_name="swin_t")


def test_each_job_gets_its_seconds() -> None:
    threads = torch.get_num_threads()

    seconds = estimate_seconds([SWIN, LUNA, RESNET])

    assert list(seconds) == ["swin_t", "luna", "resnet18"]
    assert all(0 < value < 3600 for value in seconds.values())
    assert torch.get_num_threads() == threads


def test_the_form_of_the_net_that_the_recipe_trains_is_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built, build = [], zoo.build

    def watched(*arguments: object, **options: object) -> torch.nn.Module:
        net = build(*arguments, **options)
        built.append(type(net))
        return net

    monkeypatch.setattr(zoo, "build", watched)

    estimate_seconds([replace(LUNA, recipe="modern")])

    assert set(built) == {ModernLuna}


def test_nets_beyond_the_budget_are_put_at_the_speed_of_the_others() -> None:
    seconds = estimate_seconds([LUNA, RESNET, SWIN], budget=0.0001)

    assert 0 < seconds["luna"] < seconds["resnet18"] < seconds["swin_t"]
