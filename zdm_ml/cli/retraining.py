"""The story that `zdm run` tells: a retraining, the promotion it causes, and what came of both."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

from zdm_ml.cli.app import console
from zdm_ml.cli.board import board_table
from zdm_ml.cli.progress import make_view
from zdm_ml.cli.stack import read_champion, say, say_requests, say_urls, title
from zdm_ml.errors import StackError
from zdm_ml.evaluation.wording import casting_bounds, leak_warning
from zdm_ml.follow import Follower
from zdm_ml.outcome import ask_live_server, leaderboard, read_outcome, test_image
from zdm_ml.registry.glance import count_entries
from zdm_ml.registry.naming import display_name

if TYPE_CHECKING:
    from zdm_ml.airflow_api import AirflowApi
    from zdm_ml.follow import Snapshot
    from zdm_ml.outcome import Outcome
    from zdm_ml.registry.glance import Counts
    from zdm_ml.settings import Settings


def retrain_and_promote(settings: Settings, api: AirflowApi, profile: str, before: Counts) -> None:
    """Start a retraining, follow it to the live answer; a failed run raises `StackError`.

    A promotion that waits for a person is left waiting.
    """
    _wait_for_dags(api)
    with make_view(console) as view:
        follower = Follower(api, settings.home / "progress", view)
        run_id = f"manual__{dt.datetime.now(dt.UTC):%Y-%m-%dT%H-%M-%S}"
        follower.patiently(lambda: api.trigger("retrain", run_id, {"profile": profile}))
        say(f"retrain run {run_id}, profile {profile}: {settings.airflow_url}/dags/retrain")
        retrain = follower.follow("retrain", run_id)
        promote = _follow_promotion(follower, retrain)
    outcome = follower.patiently(
        lambda: read_outcome(api, run_id, promote.run_id if promote else None)
    )
    _say_outcome(settings, run_id, outcome, before, count_entries(settings.mlflow_uri))
    for ended in (retrain, promote):
        if ended is not None and ended.state == "failed":
            raise StackError(
                f"{ended.dag} run {ended.run_id} failed in {', '.join(ended.failed) or 'a task'}",
                hint=f"read the task's log at {settings.airflow_url}/dags/{ended.dag}",
            )
    waiting = follower.patiently(lambda: api.waiting_requests("promote"))
    say_requests(waiting)
    # The first version of all may be among those that wait: then nothing is live yet.
    if read_champion(settings) is not None or not waiting:
        _say_live(settings, run_id)
    say_urls(settings)


def _follow_promotion(follower: Follower, retrain: Snapshot) -> Snapshot | None:
    register = retrain.task("register")
    if retrain.state != "success" or register is None or register.state != "success":
        return None
    promote_id = follower.find_caused("promote", retrain.run_id)
    if promote_id is None:
        raise StackError(
            "a version was registered, but no run of DAG `promote` followed",
            hint="start `promote` in Airflow's UI: it takes the challenger",
        )
    return follower.follow("promote", promote_id)


def _wait_for_dags(api: AirflowApi) -> None:
    deadline = time.monotonic() + 60
    for dag in ("retrain", "promote"):
        while (found := api.dag(dag)) is None:
            if time.monotonic() > deadline:
                errors = "; ".join(error.splitlines()[-1] for error in api.import_errors())
                raise StackError(
                    f"Airflow does not know DAG {dag}: {errors or 'it was not read yet'}",
                    hint="correct the files in dags/, or look at dag-processor.log",
                )
            time.sleep(0.5)
        if found["is_paused"]:
            say(f"DAG {dag} was paused: unpaused, its schedule included")
            api.unpause(dag)


def _say_outcome(
    settings: Settings, run_id: str, outcome: Outcome, before: Counts, after: Counts
) -> None:
    if outcome.nothing_to_do:
        say("nothing to retrain: same data, same code, same parameters")
    elif rows := leaderboard(settings, run_id):
        console.print(board_table(rows))
        for row in rows:
            say(f"{display_name(row['model_name'], row['profile'] or 'full')}: {row['reason']}")
        if rows[0]["castings"] is not None:
            say(f"{rows[0]['model_name']}: {casting_bounds(rows[0])}")
        if warning := leak_warning(rows):
            say(f"note: {warning}")
    say(
        f"MLflow: trainings {before.trainings} -> {after.trainings}, "
        f"versions {before.versions} -> {after.versions}"
    )
    for name, result in (("register", outcome.register), ("promote", outcome.promote)):
        if result is not None:
            at = f"version {result['version']}" if result.get("version") else "no version"
            alias = f" @{result['alias']}" if result.get("alias") else ""
            say(f"{name}: {result['decision']}, {at}{alias}: {result.get('reason', '')}")


def _say_live(settings: Settings, run_id: str) -> None:
    image = test_image(settings, run_id)
    if image is None:
        raise StackError("the run's workspace holds no test image", hint="run it again")
    answer = ask_live_server(settings, image)
    say(f"champion: {title(read_champion(settings))}")
    say(
        f"live: {'/'.join(image.parts[-4:])} -> {answer['verdict']}, score {answer['score']:.4f}, "
        f"threshold {answer['threshold']:.4f}, model version {answer['model']['version']}"
    )
