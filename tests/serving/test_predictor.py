import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zdm_ml.errors import PackageError
from zdm_ml.evaluation.verdicts import Ruling, Verdicts, at_threshold
from zdm_ml.models.net import LoadedNet
from zdm_ml.registry.package import load_package
from zdm_ml.serving import predictor as module
from zdm_ml.serving.predictor import Judgement, Predictor, Refusal


@pytest.fixture(scope="module")
def net(packages: dict[str, Path]) -> LoadedNet:
    return load_package(packages["1"]).net


def png(level: int, size: tuple[int, int] = (40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, level).save(buffer, "PNG")
    return buffer.getvalue()


def test_verdict_is_defect_from_the_threshold_on(net: LoadedNet) -> None:
    (score,) = net.scores([np.full((30, 40), 90, np.uint8)])

    (at,) = Predictor(net, at_threshold(score), max_pixels=10_000).judge([png(90)])
    (above,) = Predictor(net, at_threshold(np.nextafter(score, 2)), max_pixels=10_000).judge(
        [png(90)]
    )

    assert (at, above) == (Judgement("defect", score), Judgement("ok", score))


def test_a_score_between_the_thresholds_is_for_a_person(net: LoadedNet) -> None:
    (score,) = net.scores([np.full((30, 40), 90, np.uint8)])
    ruling = Ruling(Verdicts(score - 1e-3, score + 1e-3), score, True, "at most 1 %")

    (found,) = Predictor(net, ruling, max_pixels=10_000).judge([png(90)])

    assert found == Judgement("review", score)


def test_bytes_and_files_get_the_same_score(net: LoadedNet, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(png(90))

    from_bytes, from_file = Predictor(net, at_threshold(0.5), max_pixels=10_000).judge(
        [png(90), tmp_path / "image.png"]
    )

    assert from_bytes == from_file


def test_a_bad_image_between_good_ones_keeps_the_order(net: LoadedNet) -> None:
    predictor = Predictor(net, at_threshold(0.5), max_pixels=10_000)

    dark, bad, bright = predictor.judge([png(60), b"no image", png(180)])

    assert isinstance(dark, Judgement) and dark.verdict == "defect"
    assert isinstance(bad, Refusal) and bad.reason == "not_an_image"
    assert isinstance(bright, Judgement) and bright.verdict == "ok"


def test_order_holds_across_groups(net: LoadedNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP_IMAGES", 3)
    predictor = Predictor(net, at_threshold(0.5), max_pixels=10_000)
    levels = [60, 180, 60, 60, 180, 60, 180]

    verdicts = [
        result.verdict
        for result in predictor.judge(png(level) for level in levels)
        if isinstance(result, Judgement)
    ]

    assert verdicts == ["defect" if level == 60 else "ok" for level in levels]


def test_memory_is_bounded_by_scoring_before_all_sources_are_read(
    net: LoadedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP_PIXELS", 1000)
    read = []

    def sources() -> object:
        for index in range(3):
            read.append(index)
            yield png(60)

    next(Predictor(net, at_threshold(0.5), max_pixels=10_000).judge(sources()))  # type: ignore[arg-type]  # a generator

    assert read == [0]


def test_a_jpeg_cut_after_its_signature_is_undecodable_not_another_type(net: LoadedNet) -> None:
    (result,) = Predictor(net, at_threshold(0.5), max_pixels=10_000).judge([b"\xff\xd8\xff\xe0"])

    assert isinstance(result, Refusal) and result.reason == "undecodable"


def test_a_missing_file_is_a_refusal_that_names_it(net: LoadedNet, tmp_path: Path) -> None:
    (result,) = Predictor(net, at_threshold(0.5), max_pixels=10_000).judge([tmp_path / "gone.png"])

    assert isinstance(result, Refusal) and "gone.png" in result.detail


def test_a_score_that_is_no_number_never_passes_as_ok(packages: dict[str, Path]) -> None:
    net = load_package(packages["1"]).net
    next(net.net.parameters()).fill_(float("nan"))

    with pytest.raises(PackageError, match="nan"):
        list(Predictor(net, at_threshold(0.5), max_pixels=10_000).judge([png(60)]))
