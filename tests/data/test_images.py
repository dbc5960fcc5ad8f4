"""Decoding grey images: what comes out, and what is refused before it can hurt."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zdm_ml.data.images import ImageRefused, decode_grey, read_stack
from zdm_ml.errors import DataError

MAX_PIXELS = 1_000_000


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
