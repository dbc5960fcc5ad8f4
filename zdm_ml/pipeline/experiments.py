"""Experiments at a desk: the ordinary stages, in a workspace of their own per variant."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from zdm_ml.data.checkout import checkout_data
from zdm_ml.data.versions import DataVersion, resolve
from zdm_ml.errors import PipelineError
from zdm_ml.files import read_json, write_json, write_text
from zdm_ml.models.catalogue import describe
from zdm_ml.params import Transfer, load_params
from zdm_ml.pipeline.commands import dvc_command, head_commit, uncommitted
from zdm_ml.pipeline.dvcfile import read_pipeline
from zdm_ml.pipeline.execution import STAGE_PROCESS, scripts_first
from zdm_ml.pipeline.locks import fence
from zdm_ml.pipeline.profiles import run_params
from zdm_ml.pipeline.workspace import add_worktree
from zdm_ml.settings import Settings, make_home

logger = logging.getLogger(__name__)

_STDERR = 2


@dataclass(frozen=True)
class Variant:
    """One way to train: what differs from the committed params.yaml; `name` names its folder."""

    name: str
    models: Sequence[str]
    split: Mapping[str, Any] = field(default_factory=dict)
    transfer: str | None = None


@dataclass(frozen=True)
class Trial:
    """One model under one transfer strategy; `metrics` as `evaluate` writes them."""

    model: str
    transfer: str
    trainable: int
    init: str
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Bench:
    """Where variants are trained, all from one commit, data version and profile."""

    settings: Settings
    profile: str
    commit: str
    data: DataVersion
    variables: Mapping[str, str]
    say: Callable[[str], None]

    def reproduce(self, variant: Variant) -> Path:
        """Run a variant up to its evaluations and return its workspace.

        DVC's run cache remembers finished stages, so an interrupted experiment goes on.
        """
        self.say(f"{', '.join(variant.models)}: {variant.name}")
        path = self.settings.home / "experiments" / f"{variant.name}-{self.profile}"
        with fence(self.settings.home / "locks" / f"experiment-{path.name}.lock"):
            self._prepare(path, variant)
            self._repro(path, [f"evaluate@{model}" for model in variant.models])
        return path

    def record(self, name: str, result: Mapping[str, Any]) -> Path:
        """Write a result with what it came from to the state folder and return its file."""
        path = self.settings.home / "experiments" / f"{name}.json"
        origin = {"profile": self.profile, "commit": self.commit, "data": self.data.md5}
        write_json(path, {**origin, **result})
        return path

    def _prepare(self, path: Path, variant: Variant) -> None:
        add_worktree(self.settings, path, self.commit)
        params = path / "params.yaml"
        text = run_params(
            params.read_text(),
            path,
            profile=self.profile,
            models=variant.models,
            transfer=variant.transfer,
            split=variant.split,
        )
        write_text(params, text)
        checkout_data(self.settings, path, self.data.commit)

    def _repro(self, path: Path, stages: Sequence[str]) -> None:
        variables = {
            **scripts_first(self.variables),
            "ZDM_ROOT": str(path),
            "ZDM_HOME": str(self.settings.home),
            STAGE_PROCESS: str(os.getpid()),
        }
        command = dvc_command("repro", *stages)
        # stdout is for the experiment's result.
        done = subprocess.run(
            command, cwd=path, env=variables, stdout=_STDERR, stderr=_STDERR, check=False
        )
        if done.returncode != 0:
            raise PipelineError(
                f"one of {', '.join(stages)} failed in {path}",
                hint="correct the cause and start the experiment again: what is finished is kept",
            )


def open_bench(
    settings: Settings,
    *,
    profile: str,
    environ: Mapping[str, str],
    say: Callable[[str], None],
) -> Bench:
    """Return a bench on the newest data and the commit that the checkout stands on."""
    make_home(settings.home)
    changed = uncommitted(settings.root)
    if changed:
        logger.warning("not part of this experiment, because not committed: %s", ", ".join(changed))
    commit = head_commit(settings.root)
    return Bench(settings, profile, commit, resolve(settings.root), environ, say)


def transfer_trials(reproduce: Callable[[Variant], Path], models: Sequence[str]) -> Iterator[Trial]:
    """Train each model with each transfer strategy; yield trials as they end."""
    for model in models:
        for strategy in get_args(Transfer):
            path = reproduce(Variant(f"transfer-{model}-{strategy}", [model], transfer=strategy))
            yield _trial(path, model, strategy)


def _trial(path: Path, model: str, strategy: str) -> Trial:
    paths = read_pipeline(path).paths
    metrics = read_json(path / paths["evaluation"] / model / "metrics.json")
    spec = read_json(path / paths["models"] / model / "net.json")
    (described,) = describe(load_params(path / "params.yaml"))
    return Trial(model, strategy, described["trainable"], spec["init"], metrics)
