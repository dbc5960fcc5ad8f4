"""A project whose runs are made by hand, for tests on a real MLflow server."""

from __future__ import annotations

import json
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from local_http import LocalServer
from mlflow_server import MlflowServer
from ports import free_port
from registry_builders import DATA_MD5, make_castings, make_run

from zdm_ml.pipeline.plan import RunRecord
from zdm_ml.registry import ledger
from zdm_ml.registry.anchor import RegistryAnchor
from zdm_ml.registry.answers import record_answer
from zdm_ml.registry.approval import Answer
from zdm_ml.registry.chain import verify
from zdm_ml.registry.connection import connect
from zdm_ml.registry.decision import Decision
from zdm_ml.registry.finished import FinishedRun
from zdm_ml.registry.glance import anchored
from zdm_ml.registry.promotion import gate, move_champion, promote, promotion_lock
from zdm_ml.registry.registration import register_run
from zdm_ml.registry.rollback import Request, rollback
from zdm_ml.registry.versions import CHAMPION, by_alias, by_number
from zdm_ml.settings import EXPERIMENT, Settings, load_settings


class Foundry:
    """A project with castings on one MLflow server; `settings` are a running stack's, if any."""

    def __init__(
        self, folder: Path, project: Path, server: MlflowServer, settings: Settings | None = None
    ) -> None:
        self.folder, self.server = folder, server
        environ = {
            "ZDM_ROOT": str(project),
            "ZDM_HOME": str(folder / "home"),
            "MLFLOW_TRACKING_URI": server.uri,
            "ZDM_INFERENCE_PORT": str(free_port()),
        }
        self.settings = settings or load_settings(environ)
        self.rows = make_castings(folder / "castings")
        self.runs = 0

    def run(self, *, model_name: str = "luna", started: str = "", **options: Any) -> FinishedRun:
        """Write a finished run; each one started a minute after the one before."""
        self.runs += 1
        started = started or f"2026-01-01T00:{self.runs:02d}:00+00:00"
        name = f"run-{self.runs}"
        root = self.folder / name
        source = make_run(
            root, self.folder / "castings", self.rows, model_name=model_name, **options
        )
        record = RunRecord(
            run_id=name,
            profile=source.profile,
            models=[model_name],
            data_md5=DATA_MD5,
            data_version="v",
            git_commit=source.git_commit,
            params_hash=source.params_hash,
            seed=0,
            force=False,
            note="",
            stages=[],
            stale=[],
            started=started,
            workspace=str(root),
        )
        folders = ("models", "evaluation", "history")
        paths = {key: root / key for key in folders} | {
            "castings": self.folder / "castings",
            "manifest": root / "manifest" / "split.csv",
            "selection": root / "reports" / "selection.json",
        }
        return FinishedRun(record, root, paths)

    def register(self, run: FinishedRun) -> Decision:
        return register_run(self.settings, run, published=lambda _: True)

    def promote(self, version: str = "challenger", **options: Any) -> Decision:
        images = self.folder / "castings"
        return promote(self.settings, version, images_for=lambda _: images, **options)

    def gate(self, version: str = "challenger", **options: Any) -> Decision:
        images = self.folder / "castings"
        return gate(self.settings, version, images_for=lambda _: images, **options)

    def approve(self, checked: Decision, answer: Answer = "approve") -> Decision:
        """Ask about what a gate looked at, and answer as the person whom params.yaml names."""
        assert checked.version and checked.digest
        write = partial(
            record_answer,
            self.settings,
            checked.version,
            anchor=RegistryAnchor(connect(self.settings.mlflow_uri)),
            digest=checked.digest,
            champion=checked.champion,
        )
        write("ask")
        return write(answer, who="admin")

    def rollback(self, to: str | None = None, *, timeout: float = 0, **asked: Any) -> Decision:
        request = Request(asked.pop("reason", "escapes on line 3"), to, **asked)
        return rollback(self.settings, request, timeout=timeout)

    def champions(self, count: int, **options: Any) -> FinishedRun:
        """Make versions champion as promotion does behind the gate; return the last one's run."""
        client = connect(self.settings.mlflow_uri)
        for _ in range(count):
            run = self.run(seed=100 + self.runs, **options)
            version = str(self.register(run).version)
            old, new = by_alias(client, CHAMPION), by_number(client, version)
            with promotion_lock(self.settings):
                move_champion(client, old, new)
                ledger.append(
                    ledger.ledger_path(self.settings),
                    RegistryAnchor(client),
                    action="promote",
                    old=old.version if old else None,
                    new=version,
                    digest=new.package_digest,
                    reason="made champion by hand",
                )
        return run

    def decisions(self) -> list[dict[str, Any]]:
        """Return the ledger, which has to hold, chain and anchor."""
        path = ledger.ledger_path(self.settings)
        report = verify(path.read_bytes(), anchored(self.server.uri))
        assert (report.fault, report.behind) == (None, 0)
        return ledger.read(path)

    def alias(self, name: str) -> str | None:
        found = by_alias(connect(self.server.uri), name)
        return found.version if found else None


def forget_everything(server: MlflowServer) -> None:
    """Leave a server as it was found, for the next test."""
    client = connect(server.uri)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None:
        client.rename_experiment(experiment.experiment_id, f"gone-{experiment.experiment_id}")
        client.delete_experiment(experiment.experiment_id)


class Inference:
    """What `GET /model` of the inference server answers, following the registry's champion."""

    def __init__(self, port: int, version: Any) -> None:
        def do_get(handler: BaseHTTPRequestHandler) -> None:
            body = json.dumps({"name": "luna", "version": version()}).encode()
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(body)

        self.close = LocalServer(
            type("Handler", (BaseHTTPRequestHandler,), {"do_GET": do_get}), port
        ).close
