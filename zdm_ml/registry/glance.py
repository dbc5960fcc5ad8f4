"""A quick look at the registry over MLflow's REST API: importing mlflow would cost five seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests

from zdm_ml.errors import RegistryError
from zdm_ml.registry.anchor import ANCHOR
from zdm_ml.settings import EXPERIMENT, REGISTERED_MODEL

_PAGE = 1000
_OURS = f"name = '{REGISTERED_MODEL}'"


@dataclass(frozen=True)
class Counts:
    """Trainings that MLflow knows, and versions of the registered model."""

    trainings: int
    versions: int


def champion_summary(uri: str, timeout: float = 5.0) -> dict[str, str] | None:
    """Return version, model_name, run_id and profile of the champion, or None without one."""
    found = _call(
        "GET",
        f"{uri}/api/2.0/mlflow/registered-models/alias",
        timeout,
        params={"name": REGISTERED_MODEL, "alias": "champion"},
    )
    if found is None:
        return None
    version = found["model_version"]
    tags = {tag["key"]: tag.get("value", "") for tag in version.get("tags", [])}
    return {
        "version": str(version["version"]),
        "model_name": tags.get("model_name", "unknown"),
        "run_id": tags.get("run_id", ""),
        "profile": tags.get("profile", "unknown"),
    }


def anchored(uri: str, timeout: float = 5.0) -> str | None:
    """Return the anchor of the ledger, or None where there is none yet."""
    url = f"{uri}/api/2.0/mlflow/registered-models/get"
    found = _call("GET", url, timeout, params={"name": REGISTERED_MODEL})
    tags = found["registered_model"].get("tags", []) if found else []
    return next((str(tag.get("value", "")) for tag in tags if tag["key"] == ANCHOR), None)


def count_entries(uri: str, timeout: float = 10.0) -> Counts:
    """Count trainings (one MLflow run per model and retraining) and registered versions."""
    experiment = _call(
        "GET",
        f"{uri}/api/2.0/mlflow/experiments/get-by-name",
        timeout,
        params={"experiment_name": EXPERIMENT},
    )
    trainings = 0
    if experiment is not None:
        query = {
            "experiment_ids": [experiment["experiment"]["experiment_id"]],
            "filter": "tags.role = 'model'",
        }
        trainings = _count("POST", f"{uri}/api/2.0/mlflow/runs/search", timeout, query, "runs")
    versions = _count(
        "GET",
        f"{uri}/api/2.0/mlflow/model-versions/search",
        timeout,
        {"filter": _OURS},
        "model_versions",
    )
    return Counts(trainings, versions)


def versions_by_data(uri: str, timeout: float = 2.0) -> dict[str, list[str]]:
    """Return the numbers of the registered versions by the DVC hash of the data they saw."""
    url = f"{uri}/api/2.0/mlflow/model-versions/search"
    found: dict[str, list[str]] = {}
    for version in _pages("GET", url, timeout, {"filter": _OURS}, "model_versions"):
        tags = {tag["key"]: tag.get("value", "") for tag in version.get("tags", [])}
        found.setdefault(tags.get("data_md5", ""), []).append(str(version["version"]))
    return {md5: sorted(numbers, key=int) for md5, numbers in found.items()}


def _count(method: str, url: str, timeout: float, query: dict[str, Any], key: str) -> int:
    return sum(1 for _ in _pages(method, url, timeout, query, key))


def _pages(
    method: str, url: str, timeout: float, query: dict[str, Any], key: str
) -> Iterator[dict[str, Any]]:
    """Yield every item of a search, page by page."""
    token = ""
    while True:
        page = {**query, "max_results": _PAGE, **({"page_token": token} if token else {})}
        sent = {"json": page} if method == "POST" else {"params": page}
        found = _call(method, url, timeout, **sent) or {}
        yield from found.get(key, [])
        token = found.get("next_page_token", "")
        if not token:
            return


def _call(method: str, url: str, timeout: float, **query: Any) -> dict[str, Any] | None:
    """Return the answer, or None where MLflow has no such thing."""
    try:
        with requests.Session() as session:
            # The server is on this machine: a proxy in the environment is not meant for it.
            session.trust_env = False
            answer = session.request(method, url, timeout=timeout, **query)
        content: dict[str, Any] = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise RegistryError(
            f"MLflow does not answer at {url.split('/api/')[0]}",
            hint="`zdm status` shows what runs",
        ) from error
    if answer.ok:
        return content
    # A missing alias of a known model is reported as an invalid parameter.
    if content.get("error_code") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
        return None
    message = str(content.get("message", answer.status_code))
    raise RegistryError(f"MLflow refused: {message[:300]}")
