"""What figures compare is the same on both sides, and their notes say how each side worked."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

CASTINGS = 16


def test_the_reference_ends_with_the_weights_of_its_lowest_validation_loss(
    load: Any, bench: Any
) -> None:
    loop, trainings = load("reference_loop"), load("trainings")
    learn, judge = (bench.files(bench.drawn(CASTINGS, side)) for side in ("train", "val"))
    # A rate that explodes spoils the later epochs.
    recipe = replace(bench.recipe("luna", "reference", epochs=3), gamma=1e4)
    net = trainings.fresh_net("luna", recipe, 0)

    outcome = loop.train(net, learn, judge, recipe, seed=0, device=bench.device)
    loss, errors = loop.score(net, judge, recipe, bench.device)

    assert outcome.kept is not outcome.epochs[-1]
    assert loss == pytest.approx(outcome.kept.loss)
    assert errors == outcome.kept.errors


@pytest.mark.parametrize(
    ("seconds", "errors", "ratio"),
    [(2.0, 4, 5.0), (20.0, 3, 0.5), (2.0, 5, 0.0), (31.0, 3, 0.0)],
    ids=["sooner", "later than the reference", "never as few", "after the reference's whole time"],
)
def test_a_race_compares_the_moments_at_which_each_side_had_as_few_errors(
    load: Any, seconds: float, errors: int, ratio: float
) -> None:
    race, trained = load("race"), load("trainings").Trained

    run = race._Race(trained(seconds, errors), trained(10.0, 4), whole=30.0)

    assert run.ratio == ratio
    assert ("never as few" in str(run)) == (ratio == 0.0)
    assert "reference 4 after 10 s of 30 s" in str(run)


def test_a_race_says_how_many_trainings_cross_fitting_would_add(
    load: Any, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    race, full = load("race"), bench.params()
    luna = full.models["luna"]

    def said(crossfit: int) -> str:
        own = {"modern": replace(luna.recipes["modern"], crossfit=crossfit)}
        changed = replace(full, models={**full.models, "luna": replace(luna, recipes=own)})
        monkeypatch.setattr(type(bench), "params", lambda self, profile="full": changed)
        return str(race._unmeasured(bench))

    assert "takes 4 further trainings" in said(4)
    assert said(0) == ""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_in_bf16_on_a_cpu_is_compared_with_a_bf16_product_too(
    load: Any, bench: Any, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arithmetic, params = load("arithmetic"), bench.params()
    changed = replace(params, train=replace(params.train, precision=precision))
    monkeypatch.setattr(type(bench), "params", lambda self, profile="full": changed)

    (line,) = arithmetic.arithmetic(bench)

    assert math.isfinite(line.ratio) and "product in fp32" in line.note
    assert ("of a bf16 product" in line.note) == (precision == "bf16")


def test_sides_share_images_and_number_castings_alike(load: Any, bench: Any) -> None:
    rows = bench.drawn(CASTINGS, "train")
    images = np.zeros((len(rows), 4, 4), dtype=np.uint8)
    groups = [np.array([0, 3]), np.arange(len(rows)), np.array([], dtype=np.int64)]

    sides = load("bench").sides_of(images, rows, groups)

    parts = np.array([row.part for row in rows])
    for side, places in zip(sides, groups, strict=True):
        assert side.images is images and side.places.tolist() == places.tolist()
        assert side.targets.tolist() == [rows[place].target for place in places]
        assert np.unique(parts)[side.castings].tolist() == parts[places].tolist()
