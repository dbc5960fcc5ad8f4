"""Decoding grey images: what comes out, and what is refused before it can hurt."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zdm_ml.data.images import Grey, ImageRefused, decode_grey, read_stack
from zdm_ml.errors import DataError

MAX_PIXELS = 1_000_000
REAL_CASTINGS = Path(__file__).resolve().parents[3] / "shared" / "castings.zip"
SIDE = 48

JPEGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "coarse": {"quality": 20},
    "without subsampling": {"subsampling": 0},
    "half subsampling": {"subsampling": 1},
    "own tables": {"optimize": True},
    "restarts": {"restart_marker_blocks": 2},
    "progressive": {"progressive": True},
    "stored as RGB": {"keep_rgb": True},
    "comment": {"comment": b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00"},
}


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    return np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)


def colours() -> Image.Image:
    levels = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def huge_png(side: int) -> bytes:
    """A valid PNG header and an empty body that claims `side` x `side` pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def refusal(content: bytes, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(ImageRefused) as caught:
        decode_grey(content, max_pixels=max_pixels)
    return caught.value.reason


def test_a_grey_png_comes_back_unchanged() -> None:
    levels = gradient()

    decoded = decode_grey(encoded(Image.fromarray(levels), "PNG"), max_pixels=MAX_PIXELS)

    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, levels)


def test_an_rgb_jpeg_gives_its_stored_luma_bit_for_bit() -> None:
    content = encoded(colours(), "JPEG", quality=80)
    stored = Image.open(io.BytesIO(content))
    stored.draft("YCbCr", None)

    decoded = decode_grey(content, max_pixels=MAX_PIXELS)

    np.testing.assert_array_equal(decoded, np.asarray(stored)[:, :, 0])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_png_mode_decodes_to_two_dimensions(mode: str) -> None:
    content = encoded(colours().convert(mode), "PNG")

    assert decode_grey(content, max_pixels=MAX_PIXELS).shape == (48, 64)


def test_sixteen_bit_levels_are_scaled_not_clipped() -> None:
    levels = np.array([[0, 256, 65535]], dtype=np.uint16)

    decoded = decode_grey(encoded(Image.fromarray(levels), "PNG"), max_pixels=MAX_PIXELS)

    assert decoded.tolist() == [[0, 1, 255]]


def test_too_many_pixels_are_refused_by_the_header_alone() -> None:
    assert refusal(huge_png(1_001)) == "too_large"


@pytest.mark.parametrize("side", [10_000, 40_000])
def test_a_decompression_bomb_is_refused(side: int) -> None:
    assert refusal(huge_png(side)) == "too_large"


@pytest.mark.parametrize("content", [b"", b"hello", b"GIF89a" + bytes(40), b"\xff\xd8\xff"])
def test_what_is_neither_jpeg_nor_png_is_not_an_image(content: bytes) -> None:
    assert refusal(content) == "not_an_image"


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "WEBP"])
def test_images_of_other_formats_are_refused(kind: str) -> None:
    assert refusal(encoded(Image.fromarray(gradient()), kind)) == "not_an_image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_image_is_undecodable(kind: str) -> None:
    content = encoded(colours(), kind)

    assert refusal(content[: len(content) * 2 // 3]) == "undecodable"


def test_several_frames_are_refused() -> None:
    frames = [Image.fromarray(gradient()), Image.fromarray(255 - gradient())]

    animated = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    stereo = encoded(colours(), "MPO", save_all=True, append_images=[colours()])

    assert refusal(animated) == "multiple_frames"
    assert refusal(stereo) == "multiple_frames"


def stacked(folder: Path, content: bytes) -> Grey | str:
    """What `read_stack` makes of a file: its pixels, or the reason of the refusal."""
    (folder / "image").write_bytes(content)
    try:
        return read_stack(folder, ["image"], SIDE, max_pixels=MAX_PIXELS)[0]
    except ImageRefused as error:
        return error.reason


def alone(content: bytes) -> Grey | str:
    """The same of `decode_grey`."""
    try:
        grey = decode_grey(content, max_pixels=MAX_PIXELS)
    except ImageRefused as error:
        return error.reason
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def square(mode: str = "RGB") -> Image.Image:
    return colours().resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS.keys())
def test_a_stacked_jpeg_has_the_luma_of_one_decoded_alone(
    tmp_path: Path, options: dict[str, Any], mode: str
) -> None:
    content = encoded(square(mode), "JPEG", **options)

    np.testing.assert_array_equal(stacked(tmp_path, content), alone(content))


def test_a_stacked_jpeg_is_not_turned_by_its_orientation_tag(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(square(), "JPEG", exif=exif)

    np.testing.assert_array_equal(stacked(tmp_path, content), alone(content))


@pytest.mark.parametrize("marker", [0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCA])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_frames_of_other_kinds_fare_in_a_stack_as_they_do_alone(
    tmp_path: Path, mode: str, marker: int
) -> None:
    content = encoded(square(mode), "JPEG").replace(b"\xff\xc0", bytes([0xFF, marker]), 1)

    np.testing.assert_array_equal(stacked(tmp_path, content), alone(content))


def test_real_castings_are_stacked_bit_for_bit(tmp_path: Path) -> None:
    if not REAL_CASTINGS.is_file():
        pytest.skip("the real castings are not beside the project")
    with zipfile.ZipFile(REAL_CASTINGS) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpeg")][::50]
        archive.extractall(tmp_path, names)

    stack = read_stack(tmp_path, names, 300)

    for grey, name in zip(stack, names, strict=True):
        np.testing.assert_array_equal(grey, decode_grey(tmp_path / name, max_pixels=None))


def test_pillow_opens_files_of_one_camera_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = np.random.default_rng(4).integers(0, 256, (40, SIDE, SIDE, 3), dtype=np.uint8)
    names = [f"{number}.jpeg" for number in range(40)]
    for name, image in zip(names, levels, strict=True):
        # A quality that no other test encodes with: the header is unknown so far.
        Image.fromarray(image).save(tmp_path / name, quality=77)
    opened = []
    open_image = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a) or open_image(*a, **k))
    monkeypatch.setattr("os.cpu_count", lambda: 1)

    read_stack(tmp_path, names, SIDE)

    assert len(opened) == 1


@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS.keys())
def test_a_truncated_jpeg_is_not_stacked(
    tmp_path: Path, options: dict[str, Any], share: float
) -> None:
    content = encoded(square(), "JPEG", **options)
    scan = content.rindex(b"\xff\xda")
    cut = scan + int((len(content) - scan) * share)

    assert stacked(tmp_path, content[:cut]) == "undecodable"
    assert stacked(tmp_path, content[:-2]) == "undecodable"


def test_what_is_refused_alone_is_refused_in_a_stack(tmp_path: Path) -> None:
    large = encoded(Image.new("RGB", (1_001, 1_000)), "JPEG")
    stereo = encoded(square(), "MPO", save_all=True, append_images=[square()])
    twice = encoded(square(), "JPEG")
    scan = twice.index(b"\xff\xda")

    assert stacked(tmp_path, large) == "too_large"
    assert stacked(tmp_path, stereo) == "multiple_frames"
    assert stacked(tmp_path, b"hello") == "not_an_image"
    assert stacked(tmp_path, twice[:-2] + twice[scan:]) == "undecodable"


@settings(deadline=None, max_examples=200, derandomize=True)
@given(options=st.sampled_from(list(JPEGS.values())), data=st.data())
def test_hostile_jpegs_fare_in_a_stack_as_they_do_alone(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any], data: st.DataObject
) -> None:
    content = bytearray(encoded(square(), "JPEG", **options))
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    start, length = data.draw(places), data.draw(st.sampled_from([0, 0, 1, 20]))
    del content[start : start + length]
    given_up = bytes(content[: data.draw(places)]) + b"\xff\xd9"
    hostile = data.draw(st.sampled_from([bytes(content), given_up]))

    np.testing.assert_array_equal(
        stacked(tmp_path_factory.mktemp("hostile"), hostile), alone(hostile)
    )


@settings(deadline=None, max_examples=80, derandomize=True)
@given(kind=st.sampled_from(["JPEG", "PNG"]), data=st.data())
def test_hostile_bytes_give_an_image_or_a_refusal_and_nothing_else(
    kind: str, data: st.DataObject
) -> None:
    content = bytearray(encoded(colours(), kind))
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))

    try:
        decoded = decode_grey(bytes(content), max_pixels=MAX_PIXELS)
    except ImageRefused:
        return

    assert decoded.dtype == np.uint8
    assert decoded.size <= MAX_PIXELS


def test_a_refusal_of_a_file_names_it(tmp_path: Path) -> None:
    path = tmp_path / "broken.jpeg"
    path.write_bytes(b"nothing")

    with pytest.raises(ImageRefused, match=r"broken\.jpeg is neither JPEG nor PNG"):
        decode_grey(path, max_pixels=MAX_PIXELS)


def test_read_stack_keeps_the_order_and_the_pixels(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(20)]
    for number, name in enumerate(names):
        Image.new("L", (8, 8), number).save(tmp_path / name)

    stack = read_stack(tmp_path, names, 8)

    assert stack.shape == (20, 8, 8)
    assert stack[:, 0, 0].tolist() == list(range(20))


def test_read_stack_resizes_as_the_models_preprocessing_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    levels = decode_grey(encoded(colours().resize((90, 70)), "PNG"), max_pixels=MAX_PIXELS)
    Image.fromarray(levels).save(tmp_path / "image.png")

    stack = read_stack(tmp_path, ["image.png"], 32)

    expected = torch.nn.functional.interpolate(
        torch.from_numpy(levels)[None, None].float(), size=(32, 32), mode="bilinear", antialias=True
    )
    assert np.abs(stack[0] - expected[0, 0].numpy()).max() <= 1.01


def test_read_stack_names_a_missing_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png cannot be read"):
        read_stack(tmp_path, ["gone.png"], 8)


def test_read_stack_names_an_image_that_is_not_the_expected_one(tmp_path: Path) -> None:
    contents = [encoded(square().rotate(turn), "JPEG") for turn in (0, 90)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.jpeg").write_bytes(content)
    digests = [hashlib.sha256(content).hexdigest() for content in contents]

    assert len(read_stack(tmp_path, ["0.jpeg", "1.jpeg"], 8, digests=digests)) == 2
    with pytest.raises(DataError, match=r"0\.jpeg is not the one that the manifest names"):
        read_stack(tmp_path, ["0.jpeg", "1.jpeg"], 8, digests=digests[::-1])
