"""Ask the inference server which version it answers with."""

from __future__ import annotations

import time
from dataclasses import dataclass

import requests

from zdm_ml.registry.decision import Check

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Served:
    """`running` is False when nothing listens; `version` is None when nothing is served."""

    running: bool
    version: str | None


def ask(inference_url: str) -> Served:
    """Return what the server serves at this moment."""
    try:
        with requests.Session() as session:
            # The server is on this machine: a proxy in the environment is not meant for it.
            session.trust_env = False
            answer = session.get(f"{inference_url}/model", timeout=5)
    except requests.Timeout:
        return Served(running=True, version=None)
    except requests.RequestException:
        return Served(running=False, version=None)
    try:
        version = answer.json().get("version") if answer.ok else None
    except (ValueError, AttributeError):
        version = None
    return Served(running=True, version=None if version is None else str(version))


def wait_until_served(inference_url: str, version: str, timeout: float) -> Check:
    """Poll until the server answers with `version`; `broken` when no server runs at the end."""
    deadline = time.monotonic() + timeout
    served = ask(inference_url)
    while served.version != version and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        served = ask(inference_url)
    if served.version == version:
        return Check("served", "passed", version, version)
    if not served.running:
        return Check("served", "broken", f"no inference server at {inference_url}", version)
    return Check("served", "failed", served.version or "no model", version)
