import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recipes import STRONG

from zdm_ml.data.augment import Augmenter
from zdm_ml.models import zoo
from zdm_ml.models.scoring import preprocess
from zdm_ml.models.transfer import apply_transfer, train_mode
from zdm_ml.models.trunk import SplitNet, split_net
from zdm_ml.training import feature_shelf
from zdm_ml.training import features as module
from zdm_ml.training.batches import epoch_batches
from zdm_ml.training.features import (
    FeatureFeed,
    FeatureSource,
    View,
    cached_features,
    side_digest,
)
from zdm_ml.training.sides import Images, Indices, Side, Targets, make_side

COUNT, PIECE, SIZE = 21, 8, 16
PIECES = 3


class Spec:
    input_size, mean, std, standardise = SIZE, 0.5, 0.25, False


class Other(Spec):
    standardise = True


class Asked:
    """Pictures of random images, brighter by ten from view to view; remembers what was asked."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 200, (COUNT, SIZE, SIZE), dtype=np.uint8)
        self.targets = np.arange(COUNT, dtype=np.int64) % 2
        self.computed: list[tuple[int, int]] = []

    def __call__(self, view: int, places: Indices) -> tuple[Images, Targets]:
        if len(places) != 4:
            self.computed.append((view, int(places[0])))
        # From view to view another image has a defect pasted on.
        targets = np.where(places == 2 * view, 1, self.targets[places])
        return self.images[places] + np.uint8(10 * view), targets


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_PIECE", PIECE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_net(strategy: str, seed: int = 0) -> tuple[torch.nn.Module, SplitNet]:
    torch.manual_seed(seed)
    net = zoo.build("luna", SIZE)
    apply_transfer("luna", net, strategy)
    return net, split_net("luna", net, strategy)


def make_source(strategy: str = "partial", seed: int = 0) -> FeatureSource:
    _, split = make_net(strategy, seed)
    return FeatureSource(split, Spec(), Asked(), COUNT, {"seed": 1}, torch.device("cpu"))


def everything(view: View) -> tuple[np.ndarray, np.ndarray]:
    return view.batch(np.arange(len(view)))


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    return content[:300] + bytes([content[300] ^ 1]) + content[301:]


def test_views_hold_the_trunks_features_at_half_precision_and_their_own_targets(
    tmp_path: Path,
) -> None:
    source = make_source()

    views = cached_features(source, 2, tmp_path)

    for number, view in enumerate(views):
        pictures, targets = source.pictures(number, np.arange(COUNT))
        pixels = preprocess(torch.from_numpy(pictures).unsqueeze(1), Spec())
        expected = source.net.features(pixels).numpy()
        features, truth = everything(view)
        assert features.dtype == np.float32
        assert np.allclose(features, expected, rtol=2**-10, atol=1e-6)
        assert (truth == targets).all()


def test_pieces_are_mapped_from_disk_and_cannot_be_changed(tmp_path: Path) -> None:
    (view,) = cached_features(make_source(), 1, tmp_path)

    features, _ = view.pieces[0]

    assert isinstance(features, np.memmap) and features.dtype == np.float16
    with pytest.raises(ValueError, match="read-only"):
        features[0] = 0


def test_a_memory_that_is_too_small_for_the_trunk_gets_fewer_pictures_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = cached_features(make_source(), 1, tmp_path / "whole")
    compute, sizes = FeatureSource.features, []

    def tight(source: FeatureSource, pictures: np.ndarray) -> np.ndarray:
        sizes.append(len(pictures))
        if len(pictures) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(source, pictures)

    monkeypatch.setattr(FeatureSource, "features", tight)
    (halved,) = cached_features(make_source(), 1, tmp_path / "halved")

    assert max(sizes) > 2 >= sizes[-1]
    for mine, its in zip(everything(halved), everything(whole), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-2)


def test_the_second_training_computes_nothing_and_reads_the_same_bits(tmp_path: Path) -> None:
    first, second = make_source(), make_source()

    before = cached_features(first, 2, tmp_path)
    after = cached_features(second, 2, tmp_path)

    assert len(first.pictures.computed) == 2 * PIECES
    assert second.pictures.computed == []
    for one, other in zip(before, after, strict=True):
        assert all((a == b).all() for a, b in zip(everything(one), everything(other), strict=True))


def test_more_views_add_to_those_there(tmp_path: Path) -> None:
    cached_features(make_source(), 1, tmp_path)
    source = make_source()

    views = cached_features(source, 2, tmp_path)

    assert len(views) == 2
    assert {view for view, _ in source.pictures.computed} == {1}


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    def die(done: int, total: int) -> None:
        if done == COUNT + PIECE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_features(make_source(), 2, tmp_path, die)
    source = make_source()
    cached_features(source, 2, tmp_path)

    assert source.pictures.computed == [(1, PIECE), (1, 2 * PIECE)]


def test_features_longest_unused_are_dropped_unless_used_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_shelf, "_KEPT", 2)
    sources = [make_source(seed=seed) for seed in range(4)]
    for hours, source in zip((3, 2, 0), sources, strict=False):
        cached_features(source, 1, tmp_path)
        lock = tmp_path / source.key() / "lock"
        before = time.time() - 3600 * hours
        os.utime(lock, (before, before))

    cached_features(sources[3], 1, tmp_path)

    left = {folder.name for folder in tmp_path.iterdir()}
    assert left == {source.key() for source in sources[2:]}
    monkeypatch.setattr(feature_shelf, "_KEPT", 1)
    cached_features(sources[3], 1, tmp_path)
    assert {folder.name for folder in tmp_path.iterdir()} == left


def test_progress_counts_pictures_of_all_views(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []

    cached_features(make_source(), 2, tmp_path, lambda *step: steps.append(step))

    assert steps == [(done, 42) for done in (8, 16, 21, 29, 37, 42)]


CHANGES: dict[str, Callable[[FeatureSource], FeatureSource]] = {
    "weights": lambda _: make_source(seed=1),
    "strategy": lambda _: make_source("feature_extraction"),
    "preprocessing": lambda source: replace(source, spec=Other()),
    "facts": lambda source: replace(source, facts={"seed": 2}),
    "count": lambda source: replace(source, count=COUNT - 1),
    "precision": lambda source: replace(source, precision="bf16"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_key_follows_whatever_changes_features(change: str) -> None:
    assert CHANGES[change](make_source()).key() != make_source().key()


def test_key_does_not_follow_what_is_trained() -> None:
    source = make_source()
    before = source.key()

    torch.nn.init.zeros_(source.net.tail.get_submodule("head").weight)

    assert source.key() == before


def test_other_pictures_under_the_same_facts_are_noticed(tmp_path: Path) -> None:
    cached_features(make_source(), 1, tmp_path)
    source = make_source()
    source.pictures.images[:] //= 2

    cached_features(source, 1, tmp_path)

    assert len(source.pictures.computed) == PIECES


@pytest.mark.parametrize("damage", [cut, flip, lambda _: b"", lambda _: b"no array at all"])
def test_a_damaged_piece_is_made_again_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes]
) -> None:
    (view,) = cached_features(make_source(), 1, tmp_path)
    expected = np.array(everything(view)[0])
    path = next(tmp_path.rglob("0-8-*.npy"))
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(content))
    source = make_source()

    with caplog.at_level(logging.WARNING):
        (view,) = cached_features(source, 1, tmp_path)

    assert source.pictures.computed == [(0, PIECE)]
    assert path.read_bytes() == content and (everything(view)[0] == expected).all()
    assert str(path) in caplog.text and "computed again" in caplog.text


@pytest.mark.parametrize("obstacle", ["folder", "limit", "reserve"])
def test_features_stay_in_memory_when_they_cannot_be_written(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    obstacle: str,
) -> None:
    expected = [everything(view)[0] for view in cached_features(make_source(), 2, tmp_path / "x")]
    folder = tmp_path / "y"
    if obstacle == "folder":
        folder.write_text("in the way")
    if obstacle == "reserve":
        monkeypatch.setattr(feature_shelf, "_SPARE", 1 << 62)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if obstacle == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        views = cached_features(make_source(), 2, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

    assert all((everything(v)[0] == e).all() for v, e in zip(views, expected, strict=True))
    assert caplog.text.count("stay in memory") == 1
    assert not list(tmp_path.glob("y/*/*.npy"))


def test_two_trainings_at_once_compute_once(tmp_path: Path) -> None:
    sources = [make_source(), make_source()]
    threads = [Thread(target=cached_features, args=(s, 2, tmp_path)) for s in sources]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(len(source.pictures.computed) for source in sources) == 2 * PIECES


@pytest.mark.parametrize("factor", [1e8, 1e-8])
def test_features_outside_the_range_of_half_precision_are_kept_in_single(
    tmp_path: Path, factor: float
) -> None:
    source = make_source("feature_extraction")
    with torch.no_grad():
        for part in ("weight", "bias"):
            source.net.trunk.get_parameter(f"blocks.3.2.{part}").mul_(factor)

    (view,) = cached_features(source, 1, tmp_path)

    features, _ = everything(view)
    assert view.pieces[0][0].dtype == np.float32
    assert np.isfinite(features).all() and features.any()


def test_bf16_gives_nearly_the_same_features(tmp_path: Path) -> None:
    source = make_source("feature_extraction")

    (exact,) = cached_features(source, 1, tmp_path)
    (near,) = cached_features(replace(source, precision="bf16"), 1, tmp_path)

    assert np.allclose(everything(near)[0], everything(exact)[0], rtol=0.05, atol=0.01)


def test_an_augmenter_makes_pictures(tmp_path: Path) -> None:
    params = replace(STRONG, mix=0.0, paste=0.0)
    asked = Asked()
    side = make_side(asked.images, asked.targets)

    def pictures(view: int, places: Indices) -> tuple[np.ndarray, Targets]:
        return augmenter.batch(side.pictures(places), side.targets[places], view, places)

    with Augmenter(params, 3, mean=Spec.mean, std=Spec.std) as augmenter:
        views = cached_features(replace(make_source(), pictures=pictures), 2, tmp_path)

    assert (everything(views[0])[0] != everything(views[1])[0]).any()
    assert (everything(views[0])[1] == asked.targets).all()


def test_side_digest_follows_images_targets_and_their_choice() -> None:
    asked = Asked()
    side = make_side(asked.images, asked.targets)
    half = Side(asked.images, np.arange(10), asked.targets[:10], np.arange(10))
    brighter = make_side(asked.images + np.uint8(1), asked.targets)
    turned = make_side(asked.images, 1 - asked.targets)

    digests = [side_digest(each) for each in (side, half, brighter, turned)]

    assert len(set(digests)) == 4
    assert side_digest(make_side(asked.images.copy(), asked.targets)) == digests[0]


def numbered(images: int, views: int) -> list[View]:
    """Views whose features say which view and image they are; the target says the view."""
    features = [
        np.stack([np.full(images, view), np.arange(images)], 1).astype(np.float16)
        for view in range(views)
    ]
    return [
        View(
            [
                (part[start : start + PIECE], np.full(len(part[start : start + PIECE]), view))
                for start in range(0, images, PIECE)
            ]
        )
        for view, part in enumerate(features)
    ]


def shown(feed: FeatureFeed, epoch: int) -> list[tuple[int, int]]:
    return [tuple(row) for features, _ in feed.batches(epoch) for row in features.astype(int)]


def feed_of(images: int, views: int, seed: int = 7) -> FeatureFeed:
    return FeatureFeed(numbered(images, views), partial(epoch_batches, images, 4, seed), seed)


@settings(deadline=None)  # other programs may hold the CPU
@given(st.integers(2, 40), st.integers(1, 5), st.integers(0, 9), st.integers(1, 30))
def test_as_many_epochs_as_views_show_each_image_once_in_each(
    images: int, views: int, seed: int, first: int
) -> None:
    feed = feed_of(images, views, seed)

    pairs = [pair for epoch in range(first, first + views) for pair in shown(feed, epoch)]

    assert sorted(pairs) == [(view, image) for view in range(views) for image in range(images)]


def test_an_epoch_mixes_all_views_evenly() -> None:
    views = [view for view, _ in shown(feed_of(40, 4), 1)]

    assert np.bincount(views).tolist() == [10] * 4


def test_batches_follow_the_order_and_bring_the_views_targets() -> None:
    feed = feed_of(COUNT, 3)

    batches = list(feed.batches(2))

    order = epoch_batches(COUNT, 4, 7, 2)
    assert [features[:, 1].tolist() for features, _ in batches] == [b.tolist() for b in order]
    assert all((features[:, 0] == targets).all() for features, targets in batches)
    assert all(features.dtype == np.float32 for features, _ in batches)
    assert feed.count == COUNT


def test_an_image_that_an_epoch_shows_again_shows_another_view() -> None:
    feed = FeatureFeed(numbered(10, 3), lambda epoch: [np.array([4, 4]), np.array([4, 5])], 7)

    views = [view for view, image in shown(feed, 1) if image == 4]

    assert sorted(views) == [0, 1, 2]


def test_an_epochs_views_depend_on_seed_and_epoch_alone() -> None:
    keys = [(7, 1), (7, 1), (7, 2), (8, 1)]

    same, again, later, other = (sorted(shown(feed_of(30, 4, s), e)) for s, e in keys)

    assert same == again
    assert same != later and same != other


@pytest.mark.parametrize("strategy", ["partial", "feature_extraction"])
def test_a_step_on_cached_features_is_a_step_on_the_pictures(tmp_path: Path, strategy: str) -> None:
    source, nets = make_source(strategy), []
    (view,) = cached_features(source, 1, tmp_path)
    pictures, _ = source.pictures(0, np.arange(COUNT))
    inputs = {
        "whole": preprocess(torch.from_numpy(pictures).unsqueeze(1), Spec()),
        "tail": torch.from_numpy(everything(view)[0]),
    }
    targets = torch.from_numpy(everything(view)[1])

    for part in inputs:
        net, split = make_net(strategy)
        learner = net if part == "whole" else split.tail
        train_mode(learner)
        torch.nn.functional.cross_entropy(learner(inputs[part]), targets).backward()
        torch.optim.SGD(split.tail.parameters(), 1.0).step()
        nets.append(net.state_dict())

    before = make_net(strategy)[0].state_dict()
    assert not torch.equal(before["head.weight"], nets[0]["head.weight"])
    assert all(torch.allclose(nets[0][key], nets[1][key], atol=1e-4) for key in before)
