"""What a request is refused for before any image is decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
"""First bytes of the types that are decoded: JPEG and PNG."""

STATUS = {"too_large": 422, "not_an_image": 415, "undecodable": 400, "multiple_frames": 422}
"""HTTP status by the reason of an `ImageRefused`."""


class RefusalError(Exception):
    """A request that gets an answer with `status` in place of a verdict."""

    def __init__(
        self, status: int, reason: str, detail: str, *, retry_after: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Upload:
    """One image as it was sent; `file` is empty for a raw body."""

    file: str
    content: bytes


class Gate:
    """Bounds the requests in work; used by the event loop's thread alone, so it needs no lock."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.pending = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold a slot, or raise `RefusalError` (503) when all are taken."""
        if self.pending >= self._slots:
            raise RefusalError(
                503, "overload", f"{self.pending} requests are in work", retry_after=1
            )
        self.pending += 1
        try:
            yield
        finally:
            self.pending -= 1


async def read_uploads(
    request: Request, *, field: str, max_bytes: int, max_files: int, seconds: float
) -> list[Upload]:
    """Return the images of a multipart form's `field`, or the raw body as the only one."""
    limited = _limited(request, max_bytes)
    try:
        async with asyncio.timeout(seconds):
            if _is_form(request):
                uploads = await _read_form(limited, field, max_files)
            else:
                uploads = [Upload("", await limited.body())]
    except TimeoutError as error:
        raise RefusalError(408, "slow_body", f"no whole body within {seconds:g} s") from error
    if not any(upload.content for upload in uploads):
        raise RefusalError(400, "no_image", f"send an image as the body or in field {field!r}")
    return uploads


def check_type(content: bytes) -> str:
    """Return the reason to refuse `content` by its first bytes, empty for a JPEG or PNG."""
    return "" if content.startswith(SIGNATURES) else "not_an_image"


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


async def _read_form(request: Request, field: str, max_files: int) -> list[Upload]:
    try:
        async with request.form(max_files=max_files, max_fields=8, max_part_size=4096) as form:
            return [
                Upload(value.filename or "", await value.read())
                for value in form.getlist(field)
                if isinstance(value, UploadFile)
            ]
    except HTTPException as error:
        raise RefusalError(400, "bad_form", str(error.detail)) from error


def _limited(request: Request, max_bytes: int) -> Request:
    """Return the request with a body that raises `RefusalError` (413) once it is too long."""
    declared = request.headers.get("content-length", "")
    received = 0

    def check(size: int) -> None:
        if size > max_bytes:
            raise RefusalError(413, "body_too_large", f"the body passes {max_bytes} bytes")

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        check(received)
        return message

    check(int(declared) if declared.isdecimal() else 0)
    return Request(request.scope, receive)
