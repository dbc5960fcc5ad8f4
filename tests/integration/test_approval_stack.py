"""People decide on promotions in the real stack. Its tests share one and run in file order.

Version 1 waits, then version 2 as well; 2 is approved, which supersedes 1; 3 has the weights of 2.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from ports import stack_environment

from zdm_ml.airflow_api import AirflowApi, airflow_api
from zdm_ml.components import password
from zdm_ml.errors import StackError
from zdm_ml.files import read_json
from zdm_ml.outcome import last_run
from zdm_ml.registry import ledger
from zdm_ml.registry.glance import champion_summary
from zdm_ml.settings import Settings, load_settings
from zdm_ml.stack import check_health, down

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
]

ASKED_BY_FORM = {"version": 3, "ask_approval": True}
REASON = "looked at both; $(touch x) 'quoted'"


@dataclass
class Site:
    """A running stack in a checkout of its own, with people who have accounts in its Airflow."""

    environ: dict[str, str]
    settings: Settings
    first_run: str = ""
    answers: dict[str, tuple[str | None, str, str, str | None]] = field(default_factory=dict)

    @property
    def api(self) -> AirflowApi:
        return airflow_api(self.settings)

    def zdm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(Path(sys.executable).parent / "zdm"), *arguments],
            cwd=self.settings.root,
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def commit(self, section: str, **values: Any) -> None:
        path = self.settings.root / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params[section] |= values
        path.write_text(yaml.safe_dump(params))
        git(self.settings.root, "commit", "--quiet", "--all", "-m", section)

    def waits(self, known: Collection[str] = ()) -> str:
        """Return the run that asks people, once there is one beside the known ones."""
        return str(wait_for(lambda: self.waiting() - set(known)).pop())

    def waiting(self) -> set[str]:
        return {str(request["run_id"]) for request in self.api.waiting_requests("promote")}

    def states(self, run_id: str) -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in self.api.tasks("promote", run_id)}

    def ended(self, run_id: str) -> dict[str, str]:
        """Return the states of a run's tasks once it is green."""

        def green() -> bool:
            if run_id in self.answers and run_id in self.waiting():
                self.answer(*self.answers[run_id])  # Airflow has let it ask anew
            return bool(self.api.run("promote", run_id)["state"] == "success")

        wait_for(green)
        return self.states(run_id)

    def call(
        self, user: str | None, method: str, run_id: str, path: str, **body: Any
    ) -> requests.Response:
        """Do as a user to the task `approval`; None: without a login."""
        url = self.settings.airflow_url
        with requests.Session() as session:
            session.trust_env = False
            if user is not None:
                login = {"username": user, "password": password(self.settings, user)}
                token = session.post(f"{url}/auth/token", json=login, timeout=30).json()
                session.headers["Authorization"] = f"Bearer {token['access_token']}"
            task = f"{url}/api/v2/dags/promote/dagRuns/{run_id}/taskInstances/approval"
            return session.request(method, task + path, json=body or None, timeout=30)

    def answer(self, user: str | None, run_id: str, option: str, reason: str | None = None) -> int:
        """Answer as a user, as Airflow's page does; return the HTTP status."""
        # Airflow 3.3 takes a task that goes on within a second of its request, or as long as its
        # scheduler is behind, for a lost one, and lets it ask anew. People are slower.
        time.sleep(5)
        body = {"chosen_options": [option], "params_input": {"reason": reason}}
        status = self.call(user, "PATCH", run_id, "/-1/hitlDetails", **body).status_code
        if status == 200:
            self.answers[run_id] = (user, run_id, option, reason)
        return status

    def champion(self) -> str | None:
        found = champion_summary(self.settings.mlflow_uri)
        return found["version"] if found else None

    def lines(self, version: str) -> list[dict[str, Any]]:
        entries = ledger.read(self.settings.home / "ledger.jsonl")
        return [entry for entry in entries if entry["to"] == version]


@pytest.fixture(scope="module")
def site(
    make_checkout: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The stack after `zdm run` of a project with one model that only anna may approve."""
    root = make_checkout()
    _keep_luna_alone(root)
    environ = stack_environment(root, tmp_path_factory.mktemp("state") / "home")
    environ["ZDM_AIRFLOW_USERS"] = "anna:user,ben:op,vera:viewer"
    site = Site(environ, load_settings(environ))
    site.commit("promote", require_approval={"smoke": True, "full": True}, approvers=["anna"])
    site.zdm("data", "import", "synthetic", "--parts", "12", "--views", "4")
    try:
        site.first_run = site.zdm("run", "--profile", "smoke").stderr
        yield site
    finally:
        down(site.settings)


def _keep_luna_alone(root: Path) -> None:
    for name in ("params.yaml", "profiles/smoke.yaml"):
        values = yaml.safe_load((root / name).read_text())
        values["models"] = {"luna": values["models"]["luna"]}
        (root / name).write_text(yaml.safe_dump(values))


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True)


def wait_for(condition: Callable[[], Any], seconds: float = 400.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(StackError):
            if found := condition():
                return found
        time.sleep(0.5)
    raise AssertionError("it did not happen in time")


def test_run_says_who_is_waited_for_and_where_instead_of_hanging(site: Site) -> None:
    status = json.loads(site.zdm("status", "--json").stdout)

    (request,) = status["requests"]
    assert request["url"] in site.first_run
    assert "promote: waiting, version 1: version 1 waits for anna, until" in site.first_run
    assert status["last_run"]["decision"] == "waiting"
    assert status["champion"] is None


def test_the_request_shows_the_gates_checks_to_named_users(site: Site) -> None:
    run_id = site.waits()

    asked = site.call("vera", "GET", run_id, "/-1/hitlDetails").json()

    checked = site.api.result("promote", run_id, "gate")
    assert checked is not None
    assert asked["subject"] == "Promote version 1, luna (demo)?"
    assert asked["assigned_users"] == [{"id": "anna", "name": "anna"}]
    assert asked["defaults"] == ["Reject"]
    assert checked["digest"] in asked["body"]
    assert f"{site.settings.mlflow_uri}/#/models/casting-inspector/versions/1" in asked["body"]
    assert all(f"| {check['name']} |" in asked["body"] for check in checked["checks"])


@pytest.mark.parametrize(
    ("user", "status"), [("ben", 403), ("admin", 403), ("vera", 403), (None, 401)]
)
def test_who_is_not_named_cannot_answer_not_even_the_admin(
    site: Site, user: str | None, status: int
) -> None:
    run_id = site.waits()

    answered = site.answer(user, run_id, "Approve")

    assert answered == status
    assert site.waiting() == {run_id}


def test_a_request_survives_scheduler_and_api_server(site: Site) -> None:
    run_id = site.waits()
    names = ("scheduler", "api-server")
    dead = {name: read_json(site.settings.home / "components.json")[name]["pid"] for name in names}

    for pid in dead.values():
        os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        found = read_json(site.settings.home / "components.json")
        return all(found.get(name, {"pid": pid})["pid"] != pid for name, pid in dead.items())

    wait_for(replaced)
    wait_for(lambda: check_health(site.settings).healthy)
    assert site.waits() == run_id


def test_retraining_and_newer_promotions_go_on_while_a_request_waits(site: Site) -> None:
    older = site.waits()

    wait_for(lambda: site.api.trigger("retrain", "second", {"seed": 21, "profile": "smoke"}))
    newer = site.waits({older})

    assert site.waiting() == {older, newer}
    assert site.states(newer)["gate"] == "success"
    assert site.champion() is None


def test_the_named_persons_approval_promotes_and_is_in_the_ledger(site: Site) -> None:
    newer = next(run for run in site.waiting() if "second" in site.api.caused_by("promote", run))
    (older,) = site.waiting() - {newer}

    status = site.answer("anna", newer, "Approve", REASON)

    assert status == 200
    assert set(site.ended(newer).values()) == {"success"}
    assert site.champion() == "2"
    asked, approved, promoted = site.lines("2")
    assert [line["action"] for line in (asked, approved, promoted)] == ["ask", "approve", "promote"]
    assert approved["who"] == "anna"
    assert approved["reason"].endswith(REASON)
    assert approved["package_digest"] == promoted["package_digest"]
    assert promoted["reason"].endswith("approved by anna")
    assert site.waiting() == {older}


def test_an_answer_is_final(site: Site) -> None:
    (newer,) = [run["dag_run_id"] for run in site.api.runs("promote") if run["state"] == "success"]

    assert site.answer("anna", newer, "Reject") == 409


def test_an_older_approval_does_not_replace_a_newer_champion(site: Site) -> None:
    older = site.waits()

    site.answer("anna", older, "Approve")

    assert set(site.ended(older).values()) == {"success"}
    assert site.champion() == "2"
    assert [line["action"] for line in site.lines("1")] == ["ask", "approve", "supersede"]
    result = site.api.result("promote", older, "promote")
    assert result is not None and result["decision"] == "superseded"


def test_the_retrainings_form_can_ask_and_a_rejection_keeps_the_champion(site: Site) -> None:
    site.commit("promote", require_approval={"smoke": False, "full": True})
    site.commit("latency", threads=2)
    conf = {"seed": 21, "profile": "smoke", "ask_approval": True}

    wait_for(lambda: site.api.trigger("retrain", "third", conf))
    run_id = site.waits()
    status = site.answer("anna", run_id, "Reject", "not before the audit")

    assert status == 200
    states = site.ended(run_id)
    assert (states["approval"], states["promote"], states["verify_live"]) == (
        "success",
        "skipped",
        "skipped",
    )
    assert site.champion() == "2"
    rejected = site.lines("3")[-1]
    assert (rejected["action"], rejected["who"]) == ("reject", "anna")
    assert rejected["reason"].endswith("rejected by anna, nothing moves: not before the audit")
    run = last_run(site.api)
    assert run is not None and run["decision"] == "rejected"


def test_no_answer_in_time_is_a_rejection(site: Site) -> None:
    site.commit("promote", approval_hours=0.001)

    wait_for(lambda: site.api.trigger("promote", "expiring", ASKED_BY_FORM))

    assert site.ended("expiring")["promote"] == "skipped"
    assert site.champion() == "2"
    assert (site.lines("3")[-1]["action"], site.lines("3")[-1]["who"]) == ("reject", "nobody")


def test_marking_the_task_as_successful_is_no_approval(site: Site) -> None:
    site.commit("promote", approval_hours=1.0)
    wait_for(lambda: site.api.trigger("promote", "forced", ASKED_BY_FORM))
    assert site.waits() == "forced"

    done = site.call("admin", "PATCH", "forced", "", new_state="success")

    assert done.ok
    wait_for(lambda: site.states("forced")["promote"] in {"up_for_retry", "failed"})
    assert site.champion() == "2"
    assert site.lines("3")[-1]["action"] == "ask"
