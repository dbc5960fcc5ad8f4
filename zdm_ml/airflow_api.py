"""Airflow's REST API, as much of it as starting and following a run needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import requests

from zdm_ml.errors import StackError
from zdm_ml.settings import Settings

Json = dict[str, Any]


class AirflowUnreachableError(StackError):
    """The API server does not answer, or not sensibly: it may come back."""


class AirflowApi:
    """A client that logs in when it must; `password` is read then, not before."""

    def __init__(self, url: str, user: str, password: Callable[[], str], timeout: float = 15.0):
        self.url = url
        self.user = user
        self.password = password
        self.timeout = timeout
        self.session = requests.Session()
        # The servers are on this machine: a proxy in the environment is not meant for them.
        self.session.trust_env = False

    def health(self) -> Json:
        """Return the state of Airflow's components; needs no login."""
        return self._request("GET", "/api/v2/monitor/health", retry_login=False)

    def trigger(self, dag: str, run_id: str, conf: Mapping[str, Any]) -> str:
        """Start the run of that id, once however often it is asked for, and return the id.

        Values that the form refuses raise `StackError`.
        """
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        # It exists when an earlier request arrived and only its answer did not.
        with suppress(_ExistsError):
            self._request("POST", f"/api/v2/dags/{dag}/dagRuns", body)
        return run_id

    def dag(self, dag: str) -> Json | None:
        """Return a DAG, or None while Airflow does not know it."""
        return self._find(f"/api/v2/dags/{dag}")

    def unpause(self, dag: str) -> None:
        """Let a DAG's runs start."""
        self._request("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})

    def run(self, dag: str, run_id: str) -> Json:
        """Return one run."""
        return self._request("GET", _run_path(dag, run_id))

    def runs(self, dag: str, limit: int = 20) -> list[Json]:
        """Return a DAG's latest runs, newest first."""
        answer = self._find(f"/api/v2/dags/{dag}/dagRuns?order_by=-run_after&limit={limit}")
        return list(answer["dag_runs"]) if answer else []

    def tasks(self, dag: str, run_id: str) -> list[Json]:
        """Return the task instances of a run."""
        answer = self._request("GET", f"{_run_path(dag, run_id)}/taskInstances?limit=100")
        return list(answer["task_instances"])

    def result(self, dag: str, run_id: str, task: str) -> Json | None:
        """Return the JSON object that a task's command printed, if it got that far."""
        path = f"{_run_path(dag, run_id)}/taskInstances/{quote(task)}/xcomEntries/result"
        answer = self._find(path)
        value = answer["value"] if answer else None
        return value if isinstance(value, dict) else None

    def waiting_requests(self, dag: str) -> list[Json]:
        """Return run_id, subject and url of each request to people that waits for an answer."""
        path = f"/api/v2/dags/{dag}/dagRuns/~/hitlDetails?response_received=false&limit=100"
        answer = self._find(f"{path}&state=awaiting_input")
        found = [(item["task_instance"], item) for item in answer["hitl_details"]] if answer else []
        return [
            {
                "run_id": task["dag_run_id"],
                "subject": item["subject"],
                "url": self.request_url(dag, task["dag_run_id"], task["task_id"]),
            }
            for task, item in found
        ]

    def request_url(self, dag: str, run_id: str, task: str) -> str:
        """Return the page on which people answer a task's request."""
        return f"{self.url}/dags/{dag}/runs/{quote(run_id, safe='')}/tasks/{task}/required_actions"

    def caused_by(self, dag: str, run_id: str) -> list[str]:
        """Return the ids of the runs whose asset events started this run."""
        answer = self._request("GET", f"{_run_path(dag, run_id)}/upstreamAssetEvents")
        return [str(event["source_run_id"]) for event in answer["asset_events"]]

    def ensure_pool(self, name: str, slots: int) -> None:
        """Make a pool of that size, or correct its size."""
        pool = self._find(f"/api/v2/pools/{name}")
        if pool is None:
            self._request("POST", "/api/v2/pools", {"name": name, "slots": slots})
        elif pool["slots"] != slots:
            body = {"pool": name, "slots": slots, "include_deferred": False}
            self._request("PATCH", f"/api/v2/pools/{name}", body)

    def import_errors(self) -> list[str]:
        """Return why DAG files could not be read."""
        answer = self._request("GET", "/api/v2/importErrors")
        return [str(error["stack_trace"]) for error in answer["import_errors"]]

    def _find(self, path: str) -> Json | None:
        try:
            return self._request("GET", path)
        except _NotFoundError:
            return None

    def _login(self) -> None:
        credentials = {"username": self.user, "password": self.password()}
        answer = self._request("POST", "/auth/token", credentials, retry_login=False)
        self.session.headers["Authorization"] = f"Bearer {answer['access_token']}"

    def _request(
        self, method: str, path: str, body: Json | None = None, *, retry_login: bool = True
    ) -> Json:
        if retry_login and "Authorization" not in self.session.headers:
            self._login()
        try:
            answer = self.session.request(method, self.url + path, json=body, timeout=self.timeout)
        except requests.RequestException as error:
            raise AirflowUnreachableError(
                f"Airflow does not answer at {self.url}", hint="`zdm status` shows what runs"
            ) from error
        if answer.status_code == requests.codes.unauthorized and retry_login:
            self._login()
            return self._request(method, path, body, retry_login=False)
        return _content(answer, path)


class _NotFoundError(StackError):
    """Airflow has no such thing."""


class _ExistsError(StackError):
    """Airflow has such a thing already."""


def _content(answer: requests.Response, path: str) -> Json:
    if answer.status_code >= requests.codes.internal_server_error:
        raise AirflowUnreachableError(
            f"Airflow failed on {path}: HTTP {answer.status_code}",
            hint="its log is api-server.log in the state folder's logs/",
        )
    if answer.status_code == requests.codes.not_found:
        raise _NotFoundError(f"Airflow knows no {path}")
    if answer.status_code == requests.codes.conflict:
        raise _ExistsError(f"Airflow has that already: {_detail(answer)}")
    if not answer.ok:
        raise StackError(f"Airflow refused {path}: {_detail(answer)}", hint="correct the values")
    content: Json = answer.json()
    return content


def _detail(answer: requests.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"
    return str(detail).split("\n\n")[0][:500]


def _run_path(dag: str, run_id: str) -> str:
    return f"/api/v2/dags/{dag}/dagRuns/{quote(run_id, safe='')}"


def airflow_api(settings: Settings, timeout: float = 15.0) -> AirflowApi:
    """Return a client of the stack's own Airflow."""
    from zdm_ml.components import USER, password

    return AirflowApi(settings.airflow_url, USER, lambda: password(settings), timeout)
