import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from zdm_ml.errors import DataError, PackageError
from zdm_ml.models import zoo
from zdm_ml.models.luna import ModernLuna
from zdm_ml.models.net import LoadedNet, NetSpec, load_net, save_net

SPEC = NetSpec(
    model_name="luna",
    classes=("ok", "defect"),
    input_size=32,
    mean=0.5643,
    std=0.2386,
    init="scratch",
    weights_file=None,
    transfer="full",
    profile="smoke",
)


@pytest.fixture
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return zoo.build("luna", 32)


@pytest.fixture
def saved(tmp_path: Path, net: torch.nn.Module) -> Path:
    save_net(tmp_path / "luna", net, SPEC)
    return tmp_path / "luna"


@pytest.fixture
def modern(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = zoo.build("luna", 32, recipe="modern")
    save_net(tmp_path / "modern", net, replace(SPEC, recipe="modern", standardise=True))
    return tmp_path / "modern"


@pytest.fixture
def images() -> list[np.ndarray]:
    """Nine grey images, most of one size, some of others."""
    rng = np.random.default_rng(0)
    sizes = [(40, 40)] * 5 + [(300, 280), (31, 77), (1100, 1000), (32, 32)]
    return [rng.integers(0, 256, size, dtype=np.uint8) for size in sizes]


def edit_spec(folder: Path, **changes: object) -> None:
    path = folder / "net.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_saved_net_comes_back_with_its_spec_and_every_weight(saved: Path, net: torch.nn.Module):
    loaded = load_net(saved)

    assert loaded.spec == replace(SPEC, digest=loaded.spec.digest)
    assert len(loaded.spec.digest) == 64
    assert not loaded.net.training
    state = loaded.net.state_dict()
    assert all(value.equal(state[key]) for key, value in net.state_dict().items())


def test_a_net_with_buffers_besides_batch_statistics_comes_back(tmp_path: Path):
    torch.manual_seed(0)
    net = zoo.build("swin_t", 32).eval()
    save_net(tmp_path, net, replace(SPEC, model_name="swin_t"))

    loaded = load_net(tmp_path)

    batch = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.net(batch), net(batch))


def test_a_net_comes_back_in_the_form_of_its_recipe(modern: Path):
    loaded = load_net(modern)

    assert isinstance(loaded.net, ModernLuna)
    assert (loaded.spec.recipe, loaded.spec.standardise) == ("modern", True)


def test_a_net_that_standardises_scores_pictures_in_any_even_light_alike(modern: Path):
    loaded = load_net(modern)
    image = np.random.default_rng(0).integers(60, 120, (32, 32), dtype=np.uint8)

    scores = loaded.scores([image, image * 2, image + 50])

    assert scores == pytest.approx(scores[0], abs=1e-6)


def test_a_package_of_the_first_release_says_neither_recipe_nor_standardise(saved: Path):
    expected = load_net(saved)
    path = saved / "net.json"
    values = json.loads(path.read_text())
    path.write_text(
        json.dumps({key: values[key] for key in values if key not in ("recipe", "standardise")})
    )

    loaded = load_net(saved)

    image = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    assert (loaded.spec.recipe, loaded.spec.standardise) == ("reference", False)
    assert loaded.scores([image]) == expected.scores([image])


@pytest.mark.parametrize(
    ("name", "recipe"), [*((name, "reference") for name in zoo.MODEL_NAMES), ("luna", "modern")]
)
def test_the_saved_state_holds_all_of_a_net(name: str, recipe: str):
    """Otherwise a net rebuilt without memory of its own would come back with holes."""
    with torch.device("meta"):
        net = zoo.build(name, 64, recipe=recipe)

    everything = dict(net.named_parameters()) | dict(net.named_buffers())

    assert set(everything) == set(net.state_dict())


def test_the_same_net_is_saved_as_the_same_bytes(tmp_path: Path, net: torch.nn.Module):
    first = save_net(tmp_path / "a", net, SPEC)
    second = save_net(tmp_path / "b", net.to(memory_format=torch.channels_last), SPEC)

    assert first == second
    for name in ("weights.safetensors", "net.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_loading_does_not_disturb_the_random_numbers_of_a_training(saved: Path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)

    load_net(saved)

    assert torch.rand(1).equal(expected)


def test_scores_are_probabilities_of_the_second_class(saved: Path):
    loaded = load_net(saved)
    image = np.full((32, 32), 100, np.uint8)

    (score,) = loaded.scores([image])

    grey = (torch.full((1, 3, 32, 32), 100 / 255) - SPEC.mean) / SPEC.std
    assert score == pytest.approx(loaded.net(grey).softmax(1)[0, 1].item(), abs=1e-6)


def test_scores_do_not_depend_on_the_batch_or_the_company(saved: Path, images: list[np.ndarray]):
    loaded = load_net(saved)

    together = loaded.scores(images)

    alone = np.concatenate([loaded.scores([image]) for image in images])
    assert together.dtype == np.float64
    assert together.shape == (9,)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together, loaded.scores(images, batch_size=2), atol=1e-6)


def test_no_images_give_no_scores(saved: Path):
    assert load_net(saved).scores([]).shape == (0,)


def test_images_that_are_views_with_negative_strides_are_scored(saved: Path):
    loaded = load_net(saved)
    image = np.arange(1600, dtype=np.uint8).reshape(40, 40)

    mirrored = loaded.scores([image[:, ::-1]])

    assert mirrored == loaded.scores([image[:, ::-1].copy()])


@pytest.mark.parametrize("side", [40, 1100])
def test_read_only_images_are_scored_without_a_warning(side: int, saved: Path):
    """Pillow hands out read-only arrays, of which torch warns."""
    image = np.zeros((side, side), np.uint8)
    image.flags.writeable = False

    assert load_net(saved).scores([image]).shape == (1,)


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8), np.uint8)],
    ids=["float", "colour", "empty"],
)
def test_an_image_that_is_not_grey_uint8_is_refused(image: np.ndarray, saved: Path):
    with pytest.raises(DataError, match=r"must be uint8 \[H, W\]"):
        load_net(saved).scores([image])


def test_threads_that_score_at_once_get_the_scores_of_one(saved: Path, images: list[np.ndarray]):
    loaded = load_net(saved)
    expected = loaded.scores(images)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: loaded.scores(images), range(24)))

    assert all(np.allclose(answer, expected, atol=1e-6) for answer in answers)


def flip_a_weight_bit(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def cut_the_spec_short(folder: Path) -> None:
    path = folder / "net.json"
    path.write_bytes(path.read_bytes()[:40])


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped bit": (flip_a_weight_bit, "is not the file that net.json describes"),
    "no weights": (lambda folder: (folder / "weights.safetensors").unlink(), "cannot be read"),
    "no spec": (lambda folder: (folder / "net.json").unlink(), "cannot be read"),
    "short spec": (cut_the_spec_short, "is not JSON"),
    "no object": (lambda folder: (folder / "net.json").write_text("[]"), "must have exactly"),
    "extra key": (lambda folder: edit_spec(folder, made="today"), "must have exactly"),
    "class order": (lambda folder: edit_spec(folder, classes=["defect", "ok"]), "the opposite"),
    "classes": (lambda folder: edit_spec(folder, classes="ok"), "classes is 'ok'"),
    "type": (lambda folder: edit_spec(folder, input_size="32"), "input_size is '32'"),
    "truth as size": (lambda folder: edit_spec(folder, input_size=True), "input_size is True"),
    "std": (lambda folder: edit_spec(folder, std=0.0), "std is 0.0"),
    "nan mean": (lambda folder: edit_spec(folder, mean=float("nan")), "mean is nan"),
    "size": (lambda folder: edit_spec(folder, input_size=64), "does not fit luna"),
    "tiny size": (lambda folder: edit_spec(folder, input_size=1), "cannot take input_size 1"),
    "model": (lambda folder: edit_spec(folder, model_name="lunar"), "unknown model 'lunar'"),
    "recipe": (lambda folder: edit_spec(folder, recipe=1), "recipe is 1"),
    "unknown recipe": (
        lambda folder: edit_spec(folder, recipe="newest"),
        "unknown recipe 'newest'",
    ),
    "standardise": (lambda folder: edit_spec(folder, standardise=1), "standardise is 1"),
    "other recipe": (lambda folder: edit_spec(folder, recipe="modern"), "does not fit luna"),
    "no digest": (lambda folder: edit_spec(folder, digest=""), "expected none"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_package_is_refused_with_its_reason(damage: str, saved: Path):
    harm, reason = DAMAGES[damage]
    harm(saved)

    with pytest.raises(PackageError, match=reason):
        load_net(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_net_with_nan_or_infinite_weights_is_not_saved(
    value: float, tmp_path: Path, net: torch.nn.Module
):
    with torch.no_grad():
        next(net.parameters())[0] = value

    with pytest.raises(PackageError, match=r"norm\.weight holds NaN or infinite values"):
        save_net(tmp_path, net, SPEC)

    assert list(tmp_path.iterdir()) == []


def test_weights_with_nan_are_refused_even_with_the_right_digest(saved: Path):

    state = load((saved / "weights.safetensors").read_bytes())
    state["head.bias"][0] = float("nan")
    content = save(state)
    (saved / "weights.safetensors").write_bytes(content)
    edit_spec(saved, digest=hashlib.sha256(content).hexdigest())

    with pytest.raises(PackageError, match=r"head\.bias holds NaN"):
        load_net(saved)


def test_a_pickle_under_the_weights_name_is_refused(saved: Path, net: torch.nn.Module):
    path = saved / "weights.safetensors"
    torch.save(net, path)
    edit_spec(saved, digest=hashlib.sha256(path.read_bytes()).hexdigest())

    with pytest.raises(PackageError, match="is not a safetensors file"):
        load_net(saved)


def test_a_loaded_net_needs_no_gradients(saved: Path):
    loaded: LoadedNet = load_net(saved)

    assert not any(parameter.requires_grad for parameter in loaded.net.parameters())
