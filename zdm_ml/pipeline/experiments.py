"""Experiments at a desk: the ordinary stages, in a workspace of their own per variant."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from zdm_ml.data.versions import checkout_data, resolve
from zdm_ml.errors import PipelineError
from zdm_ml.files import read_json, write_text
from zdm_ml.models.catalogue import describe
from zdm_ml.params import Transfer, load_params
from zdm_ml.pipeline.commands import dvc_command
from zdm_ml.pipeline.dvcfile import read_pipeline
from zdm_ml.pipeline.execution import scripts_first
from zdm_ml.pipeline.profiles import run_params
from zdm_ml.pipeline.workspace import add_worktree
from zdm_ml.settings import Settings, make_home


@dataclass(frozen=True)
class Trial:
    """One model under one transfer strategy; `metrics` as `evaluate` writes them."""

    model: str
    transfer: str
    trainable: int
    init: str
    metrics: Mapping[str, Any]


def transfer_trials(
    settings: Settings,
    models: Sequence[str],
    *,
    profile: str,
    environ: Mapping[str, str],
    say: Callable[[str], None],
) -> Iterator[Trial]:
    """Train each model with each transfer strategy on the newest data; yield trials as they end.

    DVC's run cache remembers finished variants, so an interrupted experiment goes on.
    """
    for model in models:
        for strategy in get_args(Transfer):
            say(f"{model}: {strategy}")
            path = make_home(settings.home) / "experiments" / f"transfer-{model}-{strategy}"
            _prepare(settings, path, model, strategy, profile)
            _reproduce(path, f"evaluate@{model}", settings, environ)
            yield _trial(path, model, strategy)


def _prepare(settings: Settings, path: Path, model: str, strategy: str, profile: str) -> None:
    add_worktree(settings, path)
    params = path / "params.yaml"
    text = run_params(params.read_text(), path, profile=profile, models=[model], transfer=strategy)
    write_text(params, text)
    checkout_data(settings, path, resolve(settings.root).commit)


def _reproduce(path: Path, stage: str, settings: Settings, environ: Mapping[str, str]) -> None:
    variables = {
        **scripts_first(environ),
        "ZDM_ROOT": str(path),
        "ZDM_HOME": str(settings.home),
    }
    done = subprocess.run(dvc_command("repro", stage), cwd=path, env=variables, check=False)
    if done.returncode != 0:
        raise PipelineError(
            f"stage {stage} failed in {path}",
            hint="correct the cause and start the experiment again",
        )


def _trial(path: Path, model: str, strategy: str) -> Trial:
    paths = read_pipeline(path).paths
    metrics = read_json(path / paths["evaluation"] / model / "metrics.json")
    spec = read_json(path / paths["models"] / model / "net.json")
    (described,) = describe(load_params(path / "params.yaml"))
    return Trial(model, strategy, described["trainable"], spec["init"], metrics)
