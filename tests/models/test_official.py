import hashlib
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from local_http import LocalServer

from zdm_ml.errors import WeightsError
from zdm_ml.models import official
from zdm_ml.models.official import (
    AlteredWeightsError,
    MissingWeightsError,
    OfficialWeights,
    from_folder,
    from_network,
)


def checkpoint() -> bytes:
    content = io.BytesIO()
    torch.save({"weight": torch.arange(600.0)}, content)
    return content.getvalue()


CONTENT = checkpoint()
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAME = f"tiny-{DIGEST[:8]}.pth"


class Site:
    """A web server on 127.0.0.1 whose answers a test lays out by path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.promised: dict[str, int] = {}
        self.requests: list[str] = []
        self.silent = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802 (http.server's name)
                site.answer(self)

        server = LocalServer(Handler)
        self.url, self.close = server.uri, server.close

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(request.path)
        if request.path == "/silent.pth":
            self.silent.wait(10)
            return
        content = self.files.get(request.path)
        request.send_response(404 if content is None else 200)
        length = self.promised.get(request.path, len(content or b""))
        request.send_header("Content-Length", str(length))
        request.end_headers()
        request.wfile.write(content or b"")

    def weights(self, name: str) -> OfficialWeights:
        return OfficialWeights(source="a site", url=f"{self.url}/{name}")


@pytest.fixture
def site() -> Iterator[Site]:
    served = Site()
    yield served
    served.silent.set()
    served.close()


def test_a_download_is_verified_cached_and_not_repeated(site: Site, tmp_path: Path):
    site.files[f"/{NAME}"] = CONTENT
    seen: list[tuple[int, int]] = []

    first = from_network(
        site.weights(NAME), tmp_path, lambda done, total: seen.append((done, total))
    )
    second = from_network(site.weights(NAME), tmp_path)

    assert first == second
    assert first.path == tmp_path / NAME
    assert first.sha256 == DIGEST
    assert first.path.read_bytes() == CONTENT
    assert site.requests == [f"/{NAME}"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_damaged_copy_in_the_cache_is_downloaded_again(site: Site, tmp_path: Path):
    site.files[f"/{NAME}"] = CONTENT
    (tmp_path / NAME).write_bytes(CONTENT[:-1])

    file = from_network(site.weights(NAME), tmp_path)

    assert file.path.read_bytes() == CONTENT


def test_a_download_with_the_wrong_hash_leaves_nothing_behind(site: Site, tmp_path: Path):
    site.files[f"/{NAME}"] = CONTENT.replace(b"weight", b"weighs")

    with pytest.raises(AlteredWeightsError, match=f"its name says {DIGEST[:8]}"):
        from_network(site.weights(NAME), tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [NAME, "hashless.pth"])
def test_a_download_that_stops_short_leaves_nothing_behind(name: str, site: Site, tmp_path: Path):
    site.files[f"/{name}"] = CONTENT[:1000]
    site.promised[f"/{name}"] = len(CONTENT)

    with pytest.raises(MissingWeightsError, match=r"stopped after 1000 of|cannot be downloaded"):
        from_network(site.weights(name), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_login_page_is_not_kept_as_a_file_without_hash(site: Site, tmp_path: Path):
    site.files["/hashless.pth"] = b"<html>please sign in</html>"

    with pytest.raises(WeightsError, match="is not a readable checkpoint"):
        from_network(site.weights("hashless.pth"), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_file_the_server_lacks_is_an_error_with_its_address(site: Site, tmp_path: Path):
    with pytest.raises(MissingWeightsError, match=rf"{site.url}/{NAME} cannot be downloaded.*404"):
        from_network(site.weights(NAME), tmp_path)


def test_a_closed_port_is_an_error_with_a_next_step(tmp_path: Path):
    weights = OfficialWeights(source="nobody", url=f"http://127.0.0.1:9/{NAME}")

    with pytest.raises(MissingWeightsError, match="next: check the network"):
        from_network(weights, tmp_path)


def test_a_server_that_never_answers_is_given_up(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(official, "CONNECT_SECONDS", 0.2)

    with pytest.raises(MissingWeightsError, match="no answer in"):
        from_network(site.weights("silent.pth"), tmp_path)


def test_waiting_for_a_dead_network_takes_seconds():
    assert official.CONNECT_SECONDS <= 5


def test_a_folder_that_cannot_be_written_is_an_error_and_not_a_traceback(
    site: Site, tmp_path: Path
):
    site.files[f"/{NAME}"] = CONTENT
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(WeightsError, match="cannot be written"):
        from_network(site.weights(NAME), tmp_path / "file" / "cache")


def test_a_mirror_is_verified_too(tmp_path: Path):
    weights = OfficialWeights(source="a site", url=f"https://example.invalid/models/{NAME}")
    (tmp_path / NAME).write_bytes(CONTENT)

    assert from_folder(weights, tmp_path).sha256 == DIGEST

    (tmp_path / NAME).write_bytes(CONTENT + b"\0")
    with pytest.raises(AlteredWeightsError, match="is not the official file"):
        from_folder(weights, tmp_path)


def test_a_mirror_without_the_file_says_what_to_copy(tmp_path: Path):
    weights = OfficialWeights(source="a site", url=f"https://example.invalid/models/{NAME}")

    with pytest.raises(MissingWeightsError, match=f"copy https://example.invalid/models/{NAME}"):
        from_folder(weights, tmp_path)
    with pytest.raises(MissingWeightsError, match="is not a folder"):
        from_folder(weights, tmp_path / "offical")


def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path):
    path = tmp_path / "evil.pth"
    torch.save({"weight": Path("anything")}, path)

    with pytest.raises(WeightsError, match="is not a readable checkpoint"):
        official.read_state(path)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path):
    path = tmp_path / "list.pth"
    torch.save([torch.zeros(2)], path)

    with pytest.raises(WeightsError, match="something else than tensors by key"):
        official.read_state(path)
