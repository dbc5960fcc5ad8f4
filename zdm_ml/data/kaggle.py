"""Kaggle: the official castings, when its server can be reached."""

from __future__ import annotations

import threading
from pathlib import Path

import requests

from zdm_ml.errors import DataError

DATASET = "ravirajsinh45/real-life-industrial-dataset-of-casting-product"
PAGE = f"https://www.kaggle.com/datasets/{DATASET}"
ENDPOINT = "https://api.kaggle.com"
SECONDS = 6.0
HINT = f"download {PAGE} in a browser, then run `zdm data import <zip>`"


def download_kaggle(
    destination: Path, *, endpoint: str = ENDPOINT, seconds: float = SECONDS
) -> Path:
    """Return the folder with the unpacked dataset, downloaded into `destination`.

    Raises `DataError` within seconds where Kaggle does not answer.
    """
    if (problem := _unreachable(endpoint, seconds)) is not None:
        raise DataError(f"Kaggle cannot be reached: {problem}", hint=HINT)
    import kagglehub  # here: it takes a second to import, for this one source of data

    try:
        return Path(
            kagglehub.dataset_download(DATASET, force_download=True, output_dir=str(destination))
        )
    except Exception as error:  # kagglehub raises bare and third-party exceptions of many kinds
        raise DataError(f"Kaggle download failed: {error}", hint=HINT) from error


def _unreachable(endpoint: str, seconds: float) -> str | None:
    """Return why Kaggle does not answer in time; a name lookup alone can hang for a minute."""
    answer: list[str | None] = []

    def ask() -> None:
        try:
            requests.head(endpoint, timeout=seconds)
            answer.append(None)
        except requests.RequestException as error:
            answer.append(type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answer[0] if answer else f"no answer within {seconds:.0f} s"
