import hashlib
import io
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from folder_source import FolderSource
from httpx import Client
from PIL import Image

from zdm_ml.registry.package import load_package
from zdm_ml.serving.config import Limits, ServingConfig
from zdm_ml.serving.predictor import Judgement, Predictor
from zdm_ml.serving.server import build, listen

LIMITS = Limits(body_bytes=200_000, batch_bytes=300_000, batch_images=4, pixels=1_000_000)


def encoded(kind: str = "PNG", level: int = 60, size: tuple[int, int] = (56, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, level).save(buffer, kind)
    return buffer.getvalue()


def animated() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("L", (8, 8), level) for level in (0, 255)]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@contextmanager
def started(
    config: ServingConfig, source: FolderSource, limits: Limits = LIMITS
) -> Iterator[Client]:
    """Run a real server in a thread; on exit it is shut down like by SIGTERM."""
    server = build(replace(config, limits=limits), source)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with Client(base_url=url, timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def half_sent(client: Client) -> Iterator[socket.socket]:
    """Hold a request open whose body never becomes complete."""
    address = (client.base_url.host, client.base_url.port or 0)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        time.sleep(0.2)
        yield connection


def wait_until_ready(client: Client) -> None:
    deadline = time.monotonic() + 10
    while client.get("/ready").status_code != 200 and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.fixture(scope="module")
def sturdy(packages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One server for all the input that must not hurt it."""
    folder = tmp_path_factory.mktemp("sturdy")
    config = ServingConfig("casting-inspector", folder, f"sqlite:///{folder / 'p.db'}", 0.05)
    with started(config, FolderSource(packages)) as client:
        wait_until_ready(client)
        yield client


@pytest.fixture
def client(config: ServingConfig, source: FolderSource) -> Iterator[Client]:
    with started(config, source) as client:
        wait_until_ready(client)
        yield client


def test_the_answer_has_exactly_the_agreed_keys(sturdy: Client) -> None:
    answer = sturdy.post("/predict", content=encoded()).json()

    assert list(answer) == [
        "verdict",
        "score",
        "threshold",
        "ok_below",
        "defect_from",
        "guaranteed",
        "guarantee",
        "prediction_id",
        "image_sha256",
        "model",
        "ms",
    ]
    assert list(answer["model"]) == [
        "name",
        "version",
        "run_id",
        "data_md5",
        "git_commit",
        "profile",
    ]


def test_the_answer_names_what_judged_and_what_was_judged(sturdy: Client) -> None:
    image = encoded(level=60)

    answer = sturdy.post("/predict", content=image).json()

    assert answer["verdict"] == "defect"
    assert answer["score"] >= answer["defect_from"] == answer["ok_below"] == 0.5
    assert (answer["threshold"], answer["guaranteed"]) == (0.5, False)
    assert answer["guarantee"].startswith("no guarantee")
    assert answer["image_sha256"] == hashlib.sha256(image).hexdigest()
    assert (answer["model"]["name"], answer["model"]["version"]) == ("casting-inspector", "1")


def test_a_raw_body_and_a_form_get_the_same_score_whatever_the_header_says(
    sturdy: Client,
) -> None:
    image = encoded("JPEG", level=120)

    raw = sturdy.post("/predict", content=image, headers={"Content-Type": "text/plain"})
    form = sturdy.post("/predict", files={"file": ("x.txt", image, "application/pdf")})

    assert raw.json()["score"] == form.json()["score"]


def test_server_and_offline_scores_agree(
    sturdy: Client, castings: Path, packages: dict[str, Path]
) -> None:
    files = sorted((castings / "test").rglob("*.png"))[:6]
    package = load_package(packages["1"])
    offline = list(Predictor(package.net, package.ruling, max_pixels=10**6).judge(files))

    for file, result in zip(files, offline, strict=True):
        answer = sturdy.post("/predict", content=file.read_bytes()).json()
        assert isinstance(result, Judgement)
        assert (answer["verdict"], answer["score"]) == (
            result.verdict,
            pytest.approx(result.score, abs=1e-5),
        )


BAD_INPUT = {
    "empty": (b"", 400, "no_image"),
    "text": (b"not an image", 415, "not_an_image"),
    "gif": (b"GIF89a" + b"\0" * 50, 415, "not_an_image"),
    "truncated jpeg": (encoded("JPEG", size=(400, 300))[:-200], 400, "undecodable"),
    "truncated png": (encoded("PNG", size=(400, 300))[:-30], 400, "undecodable"),
    "signature alone": (b"\x89PNG\r\n\x1a\n", 400, "undecodable"),
    "many pixels": (encoded("PNG", size=(2000, 2000)), 422, "too_large"),
    "bomb": (encoded("PNG", size=(20_000, 12_000))[:190_000], 422, "too_large"),
    "frames": (animated(), 422, "multiple_frames"),
    "long body": (b"\xff\xd8\xff" + b"\0" * 250_000, 413, "body_too_large"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
@pytest.mark.parametrize("way", ["raw", "form"])
def test_bad_input_gets_its_status_and_the_next_image_is_judged(
    sturdy: Client, name: str, way: str
) -> None:
    content, status, reason = BAD_INPUT[name]

    if way == "raw":
        answer = sturdy.post("/predict", content=content)
    else:
        answer = sturdy.post("/predict", files={"file": content})

    assert (answer.status_code, answer.json()["error"]) == (status, reason)
    assert sturdy.post("/predict", content=encoded()).status_code == 200


def test_a_body_without_a_declared_length_is_cut_off_while_it_streams(sturdy: Client) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 1000
            yield b"\xff" * 1000

    answer = sturdy.post("/predict", content=endless())

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"Content-Type": "multipart/form-data"}, b"no boundary"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\nbroken"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--y\r\n\r\n--y--\r\n"),
    ],
)
def test_a_malformed_form_is_a_bad_request(
    sturdy: Client, headers: dict[str, str], content: bytes
) -> None:
    answer = sturdy.post("/predict", content=content, headers=headers)

    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "detail"}


def test_a_form_with_many_parts_is_refused(sturdy: Client) -> None:
    files = [("file", ("x.png", encoded(), "image/png"))] * 2

    assert sturdy.post("/predict", files=files).status_code == 400


def test_a_batch_keeps_the_order_and_scores_what_it_can(sturdy: Client) -> None:
    files = [
        ("files", ("dark.png", encoded(level=60), "image/png")),
        ("files", ("bad.png", b"no image", "image/png")),
        ("files", ("bright.jpg", encoded("JPEG", level=180), "image/jpeg")),
    ]

    entries = sturdy.post("/predict/batch", files=files).json()["predictions"]

    assert [entry["file"] for entry in entries] == ["dark.png", "bad.png", "bright.jpg"]
    assert [entry.get("verdict") for entry in entries] == ["defect", None, "ok"]
    assert entries[1]["error"] == "not_an_image"
    assert len({entry.get("prediction_id") for entry in entries}) == 3


def test_a_batch_has_limits_of_its_own(sturdy: Client) -> None:
    small = [("files", ("x.png", encoded(), "image/png"))]
    long = [("files", ("x.png", b"\0" * 400_000, "image/png"))]

    assert sturdy.post("/predict/batch", files=small * 5).status_code == 400
    assert sturdy.post("/predict/batch", files=long).status_code == 413


def test_overload_is_told_with_a_time_to_come_back(
    config: ServingConfig, source: FolderSource
) -> None:
    with started(config, source, replace(LIMITS, pending=1)) as client:
        wait_until_ready(client)
        with half_sent(client):
            during = client.post("/predict", content=encoded())
        time.sleep(0.2)
        after = client.post("/predict", content=encoded())

    assert (during.status_code, during.headers["Retry-After"]) == (503, "1")
    assert after.status_code == 200


def test_a_body_that_comes_too_slowly_loses_its_slot(
    config: ServingConfig, source: FolderSource
) -> None:
    with started(config, source, replace(LIMITS, body_seconds=0.3)) as client:
        wait_until_ready(client)
        with half_sent(client) as slow:
            answer = slow.recv(200)

    assert answer.startswith(b"HTTP/1.1 408")


def test_without_a_champion_nothing_is_guessed(config: ServingConfig, source: FolderSource) -> None:
    source.current = None
    with started(config, source) as client:
        ready = client.get("/ready")
        predict = client.post("/predict", content=encoded())
        model = client.get("/model")
        live = client.get("/live")

    assert (ready.status_code, predict.status_code, model.status_code) == (503, 503, 503)
    assert "no approved model" in predict.json()["detail"]
    assert live.status_code == 200


def test_a_broken_new_champion_shows_in_ready_while_the_old_one_answers(
    client: Client, source: FolderSource
) -> None:
    (source.folders["2"] / "net.json").write_text("{}")
    source.current = "2"
    deadline = time.monotonic() + 10
    while not client.get("/ready").json()["problem"] and time.monotonic() < deadline:
        time.sleep(0.02)

    ready = client.get("/ready")

    assert (ready.status_code, ready.json()["version"]) == (200, "1")
    assert "version 2 was not loaded" in ready.json()["problem"]
    assert client.post("/predict", content=encoded()).json()["model"]["version"] == "1"


def test_model_marks_a_quick_one_as_a_demo(sturdy: Client) -> None:
    model = sturdy.get("/model").json()

    assert model["display_name"] == "luna (demo)"
    assert (model["version"], model["profile"], model["threshold"]) == ("1", "quick", 0.5)


def test_metrics_count_requests_verdicts_and_the_serving_version(client: Client) -> None:
    client.post("/predict", content=encoded())
    client.post("/predict", content=b"no image")
    client.get("/no/such/path")

    lines = client.get("/metrics").text.splitlines()

    assert 'zdm_requests_total{path="/predict",status="200"} 1.0' in lines
    assert 'zdm_requests_total{path="/predict",status="415"} 1.0' in lines
    assert 'zdm_requests_total{path="other",status="404"} 1.0' in lines
    assert 'zdm_verdicts_total{verdict="defect",version="1"} 1.0' in lines
    assert any(line.startswith("zdm_model_info{") and 'version="1"' in line for line in lines)
    for name in ("zdm_pending_requests", "zdm_store_queue_rows", "zdm_store_dropped_rows"):
        assert any(line.startswith(name) for line in lines)


def test_every_answer_is_in_the_store_after_shutdown(
    config: ServingConfig, source: FolderSource
) -> None:
    with started(config, source) as client:
        wait_until_ready(client)
        answers = [client.post("/predict", content=encoded(level=n)).json() for n in range(40, 60)]

    path = config.store_url.removeprefix("sqlite:///")
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT id, verdict, score, model_version, ms FROM predictions")
    found = {row[0]: row[1:] for row in rows}
    connection.close()
    assert found == {
        answer["prediction_id"]: (answer["verdict"], answer["score"], "1", answer["ms"])
        for answer in answers
    }


def test_openapi_describes_both_ways_to_send_an_image(sturdy: Client) -> None:
    assert sturdy.get("/docs").status_code == 200
    paths = json.loads(sturdy.get("/openapi.json").text)["paths"]

    content = paths["/predict"]["post"]["requestBody"]["content"]

    assert set(content) == {"image/jpeg", "image/png", "multipart/form-data"}
