"""Official weight files: from the cache, a mirror folder or the network, checked by their hash."""

from __future__ import annotations

import hashlib
import http.client
import logging
import pickle
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import torch

from zdm_ml.errors import WeightsError
from zdm_ml.files import atomic_write, sha256_file

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0
_CHUNK = 1 << 20
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")

Progress = Callable[[int, int], None]
State = Mapping[str, torch.Tensor]


class AlteredWeightsError(WeightsError):
    """A weight file whose sha256 is not the one in its name."""


class MissingWeightsError(WeightsError):
    """A weight file that is neither here nor within reach."""


@dataclass(frozen=True)
class OfficialWeights:
    """One published file; `rename` maps its keys onto our net's, where they differ."""

    source: str
    url: str
    rename: Callable[[State], dict[str, torch.Tensor]] | None = None

    @property
    def file_name(self) -> str:
        """Name of the file, the same in the cache and in a mirror."""
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def sha256_prefix(self) -> str:
        """First digits of the file's sha256; empty where the publisher gives none in the name."""
        found = _HASH_IN_NAME.search(self.file_name)
        return found[1] if found else ""


@dataclass(frozen=True)
class WeightsFile:
    path: Path
    sha256: str


def from_folder(weights: OfficialWeights, folder: Path) -> WeightsFile:
    """Return the verified file in `folder`; missing or altered raises `WeightsError`."""
    if not folder.is_dir():
        raise MissingWeightsError(
            f"weights: {str(folder)!r} is not a folder",
            hint="set train.weights to auto, official, none or a folder of the official files",
        )
    path = folder / weights.file_name
    if not path.is_file():
        raise MissingWeightsError(f"{path} is missing", hint=f"copy {weights.url} into {folder}")
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror}", hint="correct its owner or permissions"
        ) from error
    _verify(weights, digest, str(path))
    return WeightsFile(path, digest)


def from_network(
    weights: OfficialWeights, cache: Path, progress: Progress | None = None
) -> WeightsFile:
    """Return the file in `cache`, downloaded first unless a sound copy is there.

    `progress(done, total)` gets bytes; `total` is 0 when the server does not say. A download
    appears under its name only when it is whole and its hash is right.
    """
    path = cache / weights.file_name
    if path.is_file():
        try:
            return from_folder(weights, cache)
        except AlteredWeightsError:
            log.warning("%s is damaged: downloading it again", path)
    log.info("downloading %s", weights.url)
    try:
        return WeightsFile(path, _download(weights, path, progress))
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be written: {error.strerror}",
            hint=f"free some space, or correct the owner of {cache}",
        ) from error


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint by key; anything else in the file is refused."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{path} is not a readable checkpoint of plain tensors",
            hint="delete it and fetch the official file again",
        ) from error
    if not isinstance(state, Mapping) or not all(map(torch.is_tensor, state.values())):
        raise WeightsError(f"{path} holds something else than tensors by key")
    return dict(state)


def _download(weights: OfficialWeights, path: Path, progress: Progress | None) -> str:
    with _open(weights.url) as response, atomic_write(path) as file:
        digest = _copy(weights, response, file, progress)
        if not weights.sha256_prefix:
            # Without a hash, a proxy's error page would pass for the file from here on.
            file.flush()
            read_state(Path(file.name))
    return digest


def _verify(weights: OfficialWeights, digest: str, where: str) -> None:
    if not digest.startswith(weights.sha256_prefix):
        raise AlteredWeightsError(
            f"{where} is not the official file: its sha256 starts with"
            f" {digest[: len(weights.sha256_prefix)]}, its name says {weights.sha256_prefix}",
            hint=f"delete it and fetch {weights.url} again",
        )


def _copy(
    weights: OfficialWeights,
    response: http.client.HTTPResponse,
    file: BinaryIO,
    progress: Progress | None,
) -> str:
    total = int(response.headers.get("Content-Length") or 0)
    digest, done = hashlib.sha256(), 0
    for chunk in _chunks(response, weights.url):
        file.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        if progress:
            progress(done, total)
    if total and done != total:
        raise MissingWeightsError(
            f"{weights.url}: the download stopped after {done} of {total} bytes",
            hint="try again, or set train.weights to a folder that holds the file",
        )
    _verify(weights, digest.hexdigest(), weights.url)
    return digest.hexdigest()


def _chunks(response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(url, error) from error


def _open(url: str) -> http.client.HTTPResponse:
    """Connect within `CONNECT_SECONDS`, name lookup and every address together."""
    # A thread, because neither the resolver nor the loop over a host's addresses takes a deadline.
    outcome: list[http.client.HTTPResponse | OSError | http.client.HTTPException] = []

    def connect() -> None:
        try:
            outcome.append(urllib.request.urlopen(url, timeout=READ_SECONDS))
        except HTTPError as error:
            error.close()
            outcome.append(error)
        except (OSError, http.client.HTTPException) as error:
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True, name="weights-connect")
    thread.start()
    thread.join(CONNECT_SECONDS)
    answer = outcome[0] if outcome else TimeoutError(f"no answer in {CONNECT_SECONDS:.0f} s")
    if isinstance(answer, http.client.HTTPResponse):
        return answer
    raise _unreachable(url, answer) from answer


def _unreachable(url: str, error: Exception) -> MissingWeightsError:
    inner = isinstance(error, URLError) and not isinstance(error, HTTPError)
    reason = getattr(error, "reason", error) if inner else error
    return MissingWeightsError(
        f"{url} cannot be downloaded: {reason or type(error).__name__}",
        hint="check the network, or set train.weights to a folder that holds the file",
    )
