"""Where a decision packet is kept: with the run that trained the version, and with the version."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zdm_ml.files import sha256_file
from zdm_ml.registry.connection import registry_errors
from zdm_ml.registry.decision import Check
from zdm_ml.registry.packet import FOLDER, PAGE, Background
from zdm_ml.registry.reuse import TEST_SET, count_uses
from zdm_ml.registry.runs import find_run
from zdm_ml.registry.versions import VersionInfo
from zdm_ml.settings import REGISTERED_MODEL

if TYPE_CHECKING:
    from mlflow import MlflowClient

PACKET, PACKET_DIGEST = "packet", "packet_digest"
KEPT = 12
"""How many digits of a page's sha256 name the folder that keeps it."""
_MODELS = "models:/"
LEADERBOARD, AUDIT = "reports/leaderboard.json", "reports/audit.json"
"""Where a retraining's run keeps what stages wrote under these paths."""


def file_packet(client: MlflowClient, version: VersionInfo, folder: Path) -> Check:
    """Log the packet's folder with the training run and with the version; return what names it.

    With the run lies the latest packet. With the version lie all of them, each in a folder named
    by the sha256 of its page, which the check carries into ledger and request: what a decision
    rested on is not overwritten when the gate is asked again.
    """
    digest = sha256_file(folder / PAGE)
    with registry_errors(str(client.tracking_uri), "filing the decision packet"):
        model = model_of(client, version)
        if model is not None:
            client.log_model_artifacts(model, str(folder), f"{FOLDER}/{digest[:KEPT]}")
        client.log_artifacts(version.mlflow_run_id, str(folder), FOLDER)
        tags = {
            PACKET: f"runs:/{version.mlflow_run_id}/{FOLDER}/{PAGE}",
            PACKET_DIGEST: digest,
        }
        for key, value in tags.items():
            client.set_model_version_tag(REGISTERED_MODEL, version.version, key, value)
    return Check(PACKET, "passed", digest[:KEPT])


def model_of(client: MlflowClient, version: VersionInfo) -> str | None:
    """Return the id of a version's MLflow model; None if the product did not register it."""
    # The server names the model as the version's source alone.
    source = str(client.get_model_version(REGISTERED_MODEL, version.version).source)
    return source.removeprefix(_MODELS) if source.startswith(_MODELS) else None


def background_of(client: MlflowClient, version: VersionInfo, level: int) -> Background:
    """Return what the retraining that made a version left; `level` of uses is when to warn."""
    with registry_errors(str(client.tracking_uri), "asking for the retraining of a version"):
        # Not the parent of the version's training: a retraining may take over an older one's.
        retraining = find_run(client, {"run_id": version.run_id, "role": "parent"})
        if retraining is None:
            return Background()
        parent = str(retraining.info.run_id)
        audit = _report(client, parent, AUDIT)
        return Background(
            leaderboard=_report(client, parent, LEADERBOARD),
            audit=None if audit is None else audit["findings"],
            reuse=_reuse(client, parent, level),
        )


def _report(client: MlflowClient, run: str, name: str) -> Any:
    """Return a JSON report of a retraining; None where it was not kept."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="zdm-report-") as temporary:
        try:
            path = client.download_artifacts(run, name, temporary)
        except MlflowException:  # the run never got its reports
            return None
        return json.loads(Path(path).read_text())


def _reuse(client: MlflowClient, run: str, level: int) -> str | None:
    """Return in a sentence how often a retraining's test castings chose; None if unknown."""
    digest = client.get_run(run).data.tags.get(TEST_SET)
    if digest is None:
        return None
    sentence = count_uses(client, digest, level).sentence
    return f"{sentence[0].upper()}{sentence[1:]}."
