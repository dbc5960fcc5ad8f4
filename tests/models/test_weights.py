import hashlib
import logging
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from zdm_ml.errors import WeightsError
from zdm_ml.models import zoo
from zdm_ml.models.official import OfficialWeights
from zdm_ml.models.weights import initialise

NOWHERE = "http://127.0.0.1:9"


def publish(folder: Path, state: dict[str, torch.Tensor], name: str = "net") -> OfficialWeights:
    """Save `state` into `folder` under a name with its hash, as torchvision does."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "draft"
    torch.save(state, draft)
    digest = hashlib.sha256(draft.read_bytes()).hexdigest()
    draft.rename(folder / f"{name}-{digest[:8]}.pth")
    return OfficialWeights(source="a test", url=f"{NOWHERE}/{name}-{digest[:8]}.pth")


def random_luna(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return zoo.build("luna", 32)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return tmp_path / "mirror"


@pytest.fixture
def published(mirror: Path) -> OfficialWeights:
    return publish(mirror, random_luna(1).state_dict())


def trunk(net: torch.nn.Module) -> torch.Tensor:
    return net.get_submodule("blocks.0.0").weight.detach().clone()


def head(net: torch.nn.Module) -> torch.Tensor:
    return net.get_submodule("head").weight.detach().clone()


def test_a_folder_gives_the_trunk_and_keeps_the_random_head(
    tmp_path: Path, mirror: Path, published: OfficialWeights
):
    net = random_luna(2)
    own_head = head(net)

    init = initialise("luna", net, 32, str(mirror), cache=tmp_path / "cache", official=published)

    assert (init.kind, init.file, init.warning) == ("mirror", published.file_name, "")
    assert init.sha256.startswith(published.sha256_prefix)
    assert trunk(net).equal(trunk(random_luna(1)))
    assert head(net).equal(own_head)


def test_official_weights_in_the_cache_need_no_network(mirror: Path, published: OfficialWeights):
    net = random_luna(2)

    init = initialise("luna", net, 32, "official", cache=mirror, official=published)

    assert init.kind == "official"
    assert trunk(net).equal(trunk(random_luna(1)))


def test_auto_without_a_network_takes_the_mirror(
    tmp_path: Path, mirror: Path, published: OfficialWeights
):
    net = random_luna(2)

    init = initialise("luna", net, 32, "auto", cache=tmp_path, mirror=mirror, official=published)

    assert init.kind == "mirror"
    assert trunk(net).equal(trunk(random_luna(1)))


@pytest.mark.parametrize("with_mirror", [True, False])
def test_auto_without_network_and_file_starts_from_scratch_and_says_so_loudly(
    with_mirror: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    net = random_luna(2)
    missing = OfficialWeights(source="a test", url=f"{NOWHERE}/net-01234567.pth")

    init = initialise(
        "luna",
        net,
        32,
        "auto",
        cache=tmp_path / "cache",
        mirror=tmp_path if with_mirror else None,
        official=missing,
    )

    assert init.kind == "scratch"
    assert "luna STARTS FROM SCRATCH" in init.warning
    assert missing.url in init.warning
    assert ("net-01234567.pth is missing" if with_mirror else "ZDM_WEIGHTS_DIR") in init.warning
    loud = [record for record in caplog.records if record.levelno > logging.INFO]
    assert [record.levelno for record in loud] == [logging.WARNING]
    assert trunk(net).equal(trunk(random_luna(2)))


def test_a_wrong_hash_in_the_mirror_stops_even_auto(
    tmp_path: Path, mirror: Path, published: OfficialWeights
):
    path = mirror / published.file_name
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(WeightsError, match="is not the official file"):
        initialise(
            "luna", random_luna(2), 32, "auto", cache=tmp_path, mirror=mirror, official=published
        )


def test_official_without_a_network_is_an_error(tmp_path: Path):
    missing = OfficialWeights(source="a test", url=f"{NOWHERE}/net-01234567.pth")

    with pytest.raises(WeightsError, match="cannot be downloaded"):
        initialise("luna", random_luna(2), 32, "official", cache=tmp_path, official=missing)


def test_a_misspelt_source_is_an_error(tmp_path: Path, published: OfficialWeights):
    with pytest.raises(WeightsError, match="'offical' is not a folder"):
        initialise("luna", random_luna(2), 32, "offical", cache=tmp_path, official=published)


@pytest.mark.parametrize(("name", "source"), [("luna", "official"), ("resnet18", "none")])
def test_a_net_without_official_weights_or_with_none_wanted_starts_from_scratch(
    name: str, source: str, tmp_path: Path
):
    init = initialise(name, zoo.build(name, 32), 32, source, cache=tmp_path)

    assert (init.kind, init.file, init.warning) == ("scratch", None, "")


def test_a_file_of_another_net_is_refused(tmp_path: Path, mirror: Path):
    state = random_luna(1).state_dict()
    del state["norm.weight"]
    other = publish(mirror, state)

    with pytest.raises(WeightsError, match=r"does not fit luna: .*norm\.weight"):
        initialise("luna", random_luna(2), 32, str(mirror), cache=tmp_path, official=other)


def test_a_thousand_class_checkpoint_fits_a_two_class_net(tmp_path: Path, mirror: Path):
    torch.manual_seed(0)
    thousand = zoo.build("resnet18", 32, 1000)
    weights = publish(mirror, thousand.state_dict())
    net = zoo.build("resnet18", 32)

    initialise("resnet18", net, 32, str(mirror), cache=tmp_path, official=weights)

    assert net.get_submodule("fc").weight.shape == (2, 512)
    assert net.get_parameter("conv1.weight").equal(thousand.get_parameter("conv1.weight"))


def test_position_embeddings_are_interpolated_to_a_smaller_input(tmp_path: Path, mirror: Path):
    torch.manual_seed(0)
    large = zoo.build("dino_vits8", 64)
    weights = publish(mirror, large.state_dict())
    net = zoo.build("dino_vits8", 32)

    initialise("dino_vits8", net, 32, str(mirror), cache=tmp_path, official=weights)

    old = large.get_parameter("encoder.pos_embedding")
    grid = old[:, 1:].transpose(1, 2).reshape(1, 384, 8, 8)
    small = functional.interpolate(grid, (4, 4), mode="bicubic", align_corners=True)
    new = net.get_parameter("encoder.pos_embedding")
    assert new[:, 0].equal(old[:, 0])
    torch.testing.assert_close(new[:, 1:], small.flatten(2).transpose(1, 2))


def test_a_dino_checkpoint_is_renamed_to_our_keys(tmp_path: Path, mirror: Path):
    torch.manual_seed(0)
    large = zoo.build("dino_vits8", 32)
    ours = large.state_dict()
    ours["class_token"].fill_(0.25)
    theirs = {f"theirs.{key}": value for key, value in ours.items()}
    weights = publish(mirror, theirs)
    renamed = OfficialWeights(
        source="a test",
        url=weights.url,
        rename=lambda state: {key.removeprefix("theirs."): state[key] for key in state},
    )
    net = zoo.build("dino_vits8", 32)

    initialise("dino_vits8", net, 32, str(mirror), cache=tmp_path, official=renamed)

    assert bool((net.get_parameter("class_token") == 0.25).all())


def test_the_older_key_names_of_torchvisions_vit_file_are_understood(tmp_path: Path, mirror: Path):
    """vit_b_16-c867db91.pth says mlp.linear_1 and mlp.linear_2 for mlp.0 and mlp.3."""
    torch.manual_seed(0)
    ours = zoo.build("dino_vits8", 32).state_dict()
    older = {
        key.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): value
        for key, value in ours.items()
    }
    weights = publish(mirror, older)
    net = zoo.build("dino_vits8", 32)

    initialise("dino_vits8", net, 32, str(mirror), cache=tmp_path, official=weights)

    key = "encoder.layers.encoder_layer_3.mlp.3.weight"
    assert net.get_parameter(key).equal(ours[key])
