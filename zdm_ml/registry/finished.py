"""A finished run as its files tell it: record, selection, and what each model is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zdm_ml.errors import PackageError, RegistryError
from zdm_ml.files import read_json
from zdm_ml.models.net import read_spec
from zdm_ml.registry.package import Source
from zdm_ml.registry.runs import TrainedModel

if TYPE_CHECKING:
    from zdm_ml.pipeline.plan import RunRecord
    from zdm_ml.settings import Settings

ARTIFACTS = (
    "metrics.json",
    "decision.json",
    "roc.csv",
    "pr.csv",
    "confusion.csv",
    "scores.csv",
    "castings.csv",
    "robustness.csv",
    "reliability.csv",
    "cost_curve.csv",
    "saliency.json",
)


@dataclass(frozen=True)
class FinishedRun:
    """A run's record, its workspace and the paths of its outs, absolute."""

    record: RunRecord
    root: Path
    paths: dict[str, Path]

    @property
    def selection(self) -> dict[str, Any]:
        """What `select` decided: winner, eligible, reason, rows."""
        path = self.paths["selection"]
        if not path.is_file():
            raise RegistryError(
                f"run {self.record.run_id} has no {path.name}", hint="let its stages finish first"
            )
        return dict(read_json(path))

    @property
    def dvc_lock_md5(self) -> str:
        """Identify everything the run's stages read and wrote."""
        return hashlib.md5((self.root / "dvc.lock").read_bytes()).hexdigest()

    def source(self, name: str) -> Source:
        """Return where a package of this run's model `name` comes from."""
        record = self.record
        return Source(
            model_name=name,
            profile=record.profile,
            data_md5=record.data_md5,
            params_hash=record.params_hash,
            git_commit=record.git_commit,
            dvc_lock_md5=self.dvc_lock_md5,
            run_id=record.run_id,
        )


def open_run(settings: Settings, run_id: str, folder: Path | None = None) -> FinishedRun:
    """Return a planned run from its workspace, or from `folder` in its place."""
    from zdm_ml.pipeline.dvcfile import read_pipeline
    from zdm_ml.pipeline.plan import read_record
    from zdm_ml.pipeline.workspace import Workspace, existing_workspace, safe_run_id

    workspace = (
        Workspace(safe_run_id(run_id), folder.resolve())
        if folder
        else existing_workspace(settings, run_id)
    )
    if not workspace.record.is_file():
        raise RegistryError(
            f"{workspace.path} is not the workspace of a run: no {workspace.record.name}",
            hint="leave --workspace out, or name the folder that `zdm workspace plan` printed",
        )
    paths = read_pipeline(workspace.path).paths
    return FinishedRun(
        record=read_record(workspace),
        root=workspace.path,
        paths={key: workspace.path / path for key, path in paths.items()},
    )


def describe(run: FinishedRun, name: str) -> TrainedModel | None:
    """Return what the files say about a model's training; None when it was not trained."""
    folder, evaluation = run.paths["models"] / name, run.paths["evaluation"] / name
    try:
        spec = read_spec(folder)
    except PackageError:
        return None
    metrics = evaluation / "metrics.json"
    return TrainedModel(
        model_name=name,
        profile=spec.profile,
        run_id=run.record.run_id,
        model_digest=spec.digest,
        data_md5=run.record.data_md5,
        params={"model_name": name, "input_size": spec.input_size, "transfer": spec.transfer},
        tags={
            **parent_tags(run.record),
            "dvc_lock_md5": run.dvc_lock_md5,
            "init": spec.init,
            "weights_file": spec.weights_file or "",
            "run_id": run.record.run_id,
        },
        history=run.paths["history"] / f"{name}.csv",
        artifacts={
            run.paths["history"] / f"{name}.png": "learning_curve",
            **{evaluation / file: "evaluation" for file in ARTIFACTS},
        },
        evaluation=read_json(metrics) if metrics.is_file() else {},
    )


def parent_params(record: RunRecord) -> dict[str, Any]:
    """Return the parameters of a retraining's parent run."""
    return {"profile": record.profile, "models": ",".join(record.models), "seed": record.seed}


def parent_tags(record: RunRecord) -> dict[str, str]:
    """Return the tags that a retraining's runs share."""
    return {
        "git_commit": record.git_commit,
        "data_md5": record.data_md5,
        "params_hash": record.params_hash,
        "profile": record.profile,
    }
