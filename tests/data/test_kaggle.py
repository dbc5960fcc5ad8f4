"""Without a way to Kaggle, the failure is quick and says what to do by hand."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from zdm_ml.data.kaggle import download_kaggle
from zdm_ml.errors import DataError


def test_a_refused_connection_names_the_manual_way(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(DataError, match="Kaggle cannot be reached") as caught:
            download_kaggle(tmp_path, endpoint=endpoint)

    assert "zdm data import <zip>" in caught.value.hint


def test_a_server_that_never_answers_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()

        with pytest.raises(DataError, match="Kaggle cannot be reached"):
            download_kaggle(tmp_path, endpoint=endpoint, seconds=0.3)

    assert time.monotonic() - started < 3
