"""Decoding: JPEG and PNG bytes to grey arrays, refusing what could hurt the process."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from zdm_ml.errors import DataError

Grey = npt.NDArray[np.uint8]
Reason = Literal["too_large", "not_an_image", "undecodable", "multiple_frames"]

FORMATS = ("JPEG", "PNG")
THREADS = 8


class ImageRefused(DataError):  # noqa: N818 (a refusal is an answer, not a fault)
    """One image that is not decoded; `reason` says which rule it broke."""

    def __init__(self, reason: Reason, problem: str, *, hint: str = "") -> None:
        super().__init__(problem, hint=hint)
        self.reason: Reason = reason


def decode_grey(source: Path | bytes, *, max_pixels: int | None) -> Grey:
    """Return the luma plane, uint8 [H, W], of one whole JPEG or PNG.

    The type is judged by content and the pixel count by the header, before anything is decoded;
    None leaves Pillow's own pixel limit. A JPEG's stored luma is returned bit for bit. Raises
    `ImageRefused`; a file that cannot be read raises `OSError`.
    """
    name = source.name if isinstance(source, Path) else "image"
    content = source.read_bytes() if isinstance(source, Path) else source
    image = _open(content, name, max_pixels)
    if getattr(image, "n_frames", 1) != 1:
        raise ImageRefused(
            "multiple_frames", f"{name} holds several frames", hint="send one frame per file"
        )
    try:
        image.draft("L", None)
        image.load()
        return _to_uint8(image)
    except Exception as error:  # hostile bytes raise whatever the parser trips over
        raise ImageRefused(
            "undecodable", f"{name} cannot be decoded: {error}", hint="copy or export it again"
        ) from error


def read_stack(
    folder: Path, paths: Sequence[str], size: int, *, max_pixels: int | None = None
) -> Grey:
    """Return images as one array, uint8 [N, size, size], in the order of `paths`.

    Images of another size are resized with antialiased bilinear weights. Raises `DataError` that
    names the file when one is missing or refused.
    """
    stack = np.empty((len(paths), size, size), dtype=np.uint8)

    def fill(index: int) -> None:
        try:
            stack[index] = _resized(decode_grey(folder / paths[index], max_pixels=max_pixels), size)
        except OSError as error:
            raise DataError(
                f"image {folder / paths[index]} cannot be read: {error.strerror}",
                hint="restore the images with `zdm data checkout`",
            ) from error

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(fill, range(len(paths))):
            pass
    return stack


def _open(content: bytes, name: str, max_pixels: int | None) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow's own limits; the warning is raised where warnings are made errors.
        raise _too_large(f"{name} has far too many pixels") from error
    except Exception as error:  # hostile bytes raise whatever the parser trips over
        raise ImageRefused(
            "not_an_image", f"{name} is neither JPEG nor PNG", hint="send a JPEG or PNG image"
        ) from error
    pixels = image.width * image.height
    if max_pixels is not None and pixels > max_pixels:
        raise _too_large(f"{name} has {pixels:,} pixels, at most {max_pixels:,} are allowed")
    return image


def _too_large(problem: str) -> ImageRefused:
    return ImageRefused("too_large", problem, hint="scale it down")


def _to_uint8(image: Image.Image) -> Grey:
    if image.mode.startswith("I;16"):
        # convert("L") would clip 16-bit levels at 255 instead of scaling them.
        return (np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8)
    return np.array(image.convert("L"), dtype=np.uint8)


def _resized(grey: Grey, size: int) -> Grey:
    if grey.shape == (size, size):
        return grey
    resized = Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)
