"""Where a decision packet is kept: with the run that trained the version, and with the version."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zdm_ml.files import sha256_file
from zdm_ml.registry.connection import registry_errors
from zdm_ml.registry.decision import Check
from zdm_ml.registry.packet import FOLDER, PAGE
from zdm_ml.registry.reuse import TEST_SET, count_uses
from zdm_ml.registry.versions import VersionInfo
from zdm_ml.settings import REGISTERED_MODEL

if TYPE_CHECKING:
    from mlflow import MlflowClient

PACKET, PACKET_DIGEST = "packet", "packet_digest"
KEPT = 12
"""How many digits of a page's sha256 name the folder that keeps it."""
_MODELS = "models:/"
_LEADERBOARD = "reports/leaderboard.json"


def file_packet(client: MlflowClient, version: VersionInfo, folder: Path) -> Check:
    """Log the packet's folder with the training run and with the version; return what names it.

    With the run lies the latest packet. With the version lie all of them, each in a folder named
    by the sha256 of its page, which the check carries into ledger and request: what a decision
    rested on is not overwritten when the gate is asked again.
    """
    digest = sha256_file(folder / PAGE)
    with registry_errors(str(client.tracking_uri), "filing the decision packet"):
        # The server names the model as the version's source alone.
        source = str(client.get_model_version(REGISTERED_MODEL, version.version).source)
        if source.startswith(_MODELS):  # not so of a version that the product did not register
            kept = f"{FOLDER}/{digest[:KEPT]}"
            client.log_model_artifacts(source.removeprefix(_MODELS), str(folder), kept)
        client.log_artifacts(version.mlflow_run_id, str(folder), FOLDER)
        tags = {
            PACKET: f"runs:/{version.mlflow_run_id}/{FOLDER}/{PAGE}",
            PACKET_DIGEST: digest,
        }
        for key, value in tags.items():
            client.set_model_version_tag(REGISTERED_MODEL, version.version, key, value)
    return Check(PACKET, "passed", digest[:KEPT])


def leaderboard_of(client: MlflowClient, version: VersionInfo) -> Sequence[dict[str, Any]]:
    """Return the leaderboard of the retraining that made a version; empty where none was kept."""
    from mlflow.exceptions import MlflowException

    with registry_errors(str(client.tracking_uri), "asking for the leaderboard"):
        parent = _parent(client, version)
        if parent is None:
            return []
        with tempfile.TemporaryDirectory(prefix="zdm-leaderboard-") as temporary:
            try:
                path = client.download_artifacts(parent, _LEADERBOARD, temporary)
            except MlflowException:  # its parent run never got its reports
                return []
            return list(json.loads(Path(path).read_text()))


def reuse_of(client: MlflowClient, version: VersionInfo, level: int) -> str:
    """Return in a sentence how often the version's test castings chose; empty if unknown."""
    with registry_errors(str(client.tracking_uri), "counting the uses of the test castings"):
        parent = _parent(client, version)
        digest = client.get_run(parent).data.tags.get(TEST_SET) if parent else None
        if digest is None:
            return ""
        sentence = count_uses(client, digest, level).sentence
    return f"{sentence[0].upper()}{sentence[1:]}."


def _parent(client: MlflowClient, version: VersionInfo) -> str | None:
    found: str | None = client.get_run(version.mlflow_run_id).data.tags.get("mlflow.parentRunId")
    return found
