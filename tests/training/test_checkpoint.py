import logging
import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from zdm_ml.training.checkpoint import load, save

SIGNATURE = {"name": "luna", "shapes": [[2, 3]]}


def state() -> dict[str, object]:
    return {"signature": SIGNATURE, "net": {"w": torch.arange(600.0)}, "epoch": 3}


def test_state_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"

    assert save(path, state())
    loaded = load(path, SIGNATURE)

    assert loaded is not None
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["net"]["w"], torch.arange(600.0))


def test_no_file_is_no_checkpoint_and_no_warning(tmp_path: Path, caplog) -> None:
    assert load(tmp_path / "c.pt", SIGNATURE) is None
    assert not caplog.records


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    place = content.index(torch.arange(600.0).numpy().tobytes()) + 99
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda _: b"", lambda _: b"not a zip at all"])
def test_damaged_checkpoint_is_ignored_with_a_warning(tmp_path: Path, caplog, damage) -> None:
    path = tmp_path / "c.pt"
    save(path, state())
    path.write_bytes(damage(path.read_bytes()))

    with caplog.at_level(logging.WARNING):
        loaded = load(path, SIGNATURE)

    assert loaded is None
    assert str(path) in caplog.text and "starts over" in caplog.text


def test_checkpoint_of_another_training_is_ignored(tmp_path: Path, caplog) -> None:
    save(tmp_path / "c.pt", state())

    assert load(tmp_path / "c.pt", {**SIGNATURE, "name": "resnet18"}) is None
    assert "another training" in caplog.text


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil",)


def test_checkpoint_never_runs_code(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"signature": SIGNATURE, "net": Evil()}, tmp_path / "c.pt")

    assert load(tmp_path / "c.pt", SIGNATURE) is None
    assert not (tmp_path / "evil").exists()


def test_unwritable_folder_is_a_warning(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("in the way")

    assert not save(tmp_path / "file" / "c.pt", state())
    assert "not written" in caplog.text


def test_failed_write_keeps_the_old_checkpoint(tmp_path: Path, caplog) -> None:
    path = tmp_path / "c.pt"
    save(path, state())
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        written = save(path, {**state(), "net": {"w": torch.zeros(100_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

    assert not written
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
