"""Register, gate and promote on a real MLflow server process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
from foundry import Foundry
from mlflow_server import MlflowServer
from ports import free_port
from registry_builders import DATA_MD5, FINDING, METRICS, board_row, make_castings

from zdm_ml.errors import PackageError, RegistryError
from zdm_ml.files import sha256_file, write_json
from zdm_ml.registry import ledger
from zdm_ml.registry.asking import approval_request
from zdm_ml.registry.connection import connect
from zdm_ml.registry.glance import versions_by_data
from zdm_ml.registry.promotion import gate, promote
from zdm_ml.registry.registration import register_run
from zdm_ml.registry.runs import start_parent
from zdm_ml.registry.versions import champion, download_package, registered_runs
from zdm_ml.settings import EXPERIMENT, REGISTERED_MODEL

pytestmark = pytest.mark.integration


def test_registration_makes_one_version_with_evidence(foundry: Foundry) -> None:
    decision = foundry.register(foundry.run())

    client = connect(foundry.server.uri)
    version = client.get_model_version(REGISTERED_MODEL, decision.version)
    run = client.get_run(version.run_id)
    assert (decision.decision, decision.alias) == ("registered", "challenger")
    assert foundry.alias("challenger") == decision.version
    assert foundry.alias("champion") is None
    assert "(demo)" in version.description
    assert {
        "model_name",
        "profile",
        "data_md5",
        "git_commit",
        "dvc_lock_md5",
        "package_digest",
        "trained_on_digest",
        "params_hash",
    } <= set(version.tags)
    assert run.inputs.dataset_inputs[0].dataset.digest == DATA_MD5
    assert run.data.tags["init"] == "scratch"
    assert [m.value for m in client.get_metric_history(run.info.run_id, "train_loss")] == [
        0.5,
        0.25,
    ]
    assert {f.path for f in client.list_artifacts(run.info.run_id)} == {"history", "evaluation"}
    assert client.get_run(run.data.tags["mlflow.parentRunId"]).info.status == "FINISHED"


def test_the_same_package_is_never_registered_twice(foundry: Foundry) -> None:
    first = foundry.register(foundry.run())
    later = foundry.register(foundry.run(seed=1))

    again = foundry.register(foundry.run())

    assert (again.version, again.decision) == (first.version, "unchanged")
    assert foundry.alias("challenger") == later.version
    assert registered_runs(foundry.server.uri) == {"run-1", "run-2"}


def test_two_parallel_registrations_give_one_version(foundry: Foundry) -> None:
    run = foundry.run()
    with ThreadPoolExecutor(2) as pool:
        decisions = list(pool.map(foundry.register, [run, run]))

    assert {d.version for d in decisions} == {"1"}
    assert sorted(d.decision for d in decisions) == ["registered", "unchanged"]


def test_versions_are_found_by_the_data_that_they_saw(
    foundry: Foundry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One version per page, so that three pages are read."""
    monkeypatch.setattr("zdm_ml.registry.glance._PAGE", 1)
    other = "0" * 32 + ".dir"
    before = versions_by_data(foundry.server.uri)
    for seed in range(2):
        foundry.register(foundry.run(seed=seed))
    run = foundry.run(seed=2)
    foundry.register(replace(run, record=replace(run.record, data_md5=other)))

    found = versions_by_data(foundry.server.uri)

    assert before == {}
    assert found == {DATA_MD5: ["1", "2"], other: ["3"]}


def test_without_a_server_versions_by_data_are_an_error_not_an_empty_answer() -> None:
    with pytest.raises(RegistryError, match="MLflow does not answer"):
        versions_by_data(f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize("lost", ["alias", "tags", "version"])
def test_a_registration_cut_short_is_completed(foundry: Foundry, lost: str) -> None:
    run = foundry.run()
    version = foundry.register(run).version
    client = connect(foundry.server.uri)
    assert version is not None
    client.delete_model_version_tag(REGISTERED_MODEL, version, "registration")
    client.delete_registered_model_alias(REGISTERED_MODEL, "challenger")
    if lost == "tags":
        client.delete_model_version_tag(REGISTERED_MODEL, version, "package_digest")
        client.delete_model_version_tag(REGISTERED_MODEL, version, "model_name")
    if lost == "version":
        client.delete_model_version(REGISTERED_MODEL, version)

    repaired = foundry.register(run)

    assert repaired.decision == "registered"
    assert foundry.alias("challenger") == repaired.version
    versions = client.search_model_versions(f"name = '{REGISTERED_MODEL}'")
    assert [item.tags["model_name"] for item in versions] == ["luna"]
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert len(client.search_logged_models([experiment.experiment_id])) == 1


def test_an_unpublished_run_is_not_registered(foundry: Foundry) -> None:
    with pytest.raises(RegistryError, match="no tag run/run-1"):
        register_run(foundry.settings, foundry.run(), published=lambda _: False)


def test_an_ineligible_selection_is_not_registered(foundry: Foundry) -> None:
    run = foundry.run()
    selection = {"winner": None, "eligible": False, "reason": "2 of 8 models", "rows": []}
    run.paths["selection"].write_text(json.dumps(selection))

    decision = foundry.register(run)

    assert (decision.decision, decision.version) == ("not_eligible", None)
    assert "2 of 8 models" in decision.reason


def test_a_better_challenger_becomes_champion_and_the_old_one_previous(foundry: Foundry) -> None:
    first = foundry.register(foundry.run())
    promoted = foundry.promote()
    second = foundry.register(foundry.run(seed=1))

    replaced = foundry.promote()
    repeated = foundry.promote()

    assert (promoted.decision, promoted.alias) == ("promoted", "champion")
    assert replaced.decision == "promoted"
    assert (foundry.alias("champion"), foundry.alias("previous")) == (second.version, first.version)
    assert repeated.decision == "unchanged"
    entries = foundry.decisions()
    assert [(e["action"], e["from"], e["to"]) for e in entries] == [
        ("promote", None, "1"),
        ("promote", "1", "2"),
    ]


def test_a_worse_challenger_leaves_the_champion_and_shows_figures(foundry: Foundry) -> None:
    foundry.register(foundry.run())
    foundry.promote()
    worse = foundry.register(foundry.run(good=False))

    seen = foundry.gate("2")
    kept = foundry.promote()

    states = {check.name: check.state for check in kept.checks}
    assert (seen.decision, kept.decision, kept.version) == ("kept", "kept", worse.version)
    assert foundry.alias("champion") == "1"
    assert states["escapes"] == states["cost"] == "failed"
    assert "escapes: 1, limit 0.5" in kept.reason


def test_the_gate_files_a_packet_with_the_run_and_with_the_version(foundry: Foundry) -> None:
    foundry.register(foundry.run())

    checked = gate(foundry.settings, "1", images_for=lambda _: foundry.folder / "castings")

    client = connect(foundry.server.uri)
    version = client.get_model_version(REGISTERED_MODEL, "1")
    page = Path(client.download_artifacts(version.run_id, "packet")) / "packet.html"
    assert version.tags["packet"] == f"runs:/{version.run_id}/packet/packet.html"
    assert version.tags["packet_digest"] == sha256_file(page)
    (named,) = [str(check.value) for check in checked.checks if check.name == "packet"]
    assert sha256_file(page).startswith(named)
    kept = (foundry.server.folder / "artifacts").rglob(f"models/*/artifacts/packet/{named}/*.html")
    assert [copy.read_bytes() for copy in kept] == [page.read_bytes()]
    assert "Every check of the gate passed" in page.read_text()
    figures = json.loads(page.with_name("packet.json").read_text())
    assert figures["audit"] == [FINDING]
    assert [row["model_name"] for row in figures["leaderboard"]] == ["luna"]


def test_weights_that_are_judged_anew_have_the_packet_of_the_new_retraining(
    foundry: Foundry,
) -> None:
    foundry.register(foundry.run(seed=3))
    later = foundry.run(seed=3, threshold=0.4, metrics=METRICS | {"recall": 0.25})
    write_json(later.root / "reports" / "leaderboard.json", [board_row("luna", cost=7.0)])
    parent = start_parent(foundry.server.uri, later.record.run_id, {}, {})

    registered = foundry.register(
        replace(later, record=replace(later.record, mlflow_run_id=parent))
    )
    foundry.gate(str(registered.version))

    client = connect(foundry.server.uri)
    run = client.get_model_version(REGISTERED_MODEL, registered.version).run_id
    figures = json.loads(Path(client.download_artifacts(run, "packet/packet.json")).read_text())
    assert registered.decision == "registered"
    assert [row["cost"] for row in figures["leaderboard"]] == [7.0]
    assert client.get_run(run).data.metrics["recall"] == 0.25


def test_a_profile_that_the_package_does_not_have_is_broken_evidence(foundry: Foundry) -> None:
    foundry.register(foundry.run(profile="full"))
    client = connect(foundry.server.uri)
    client.set_model_version_tag(REGISTERED_MODEL, "1", "profile", "quick")

    kept = foundry.promote()

    assert kept.decision == "kept"
    assert [check.name for check in kept.checks if check.state == "broken"] == ["digests"]
    assert "profile full, its tag says quick" in kept.reason


def test_a_demo_never_replaces_a_full_model(foundry: Foundry) -> None:
    foundry.register(foundry.run(profile="full"))
    foundry.approve(foundry.gate())
    foundry.promote()
    foundry.register(foundry.run(profile="quick"))

    kept = foundry.promote()

    assert kept.decision == "kept"
    assert {c.name for c in kept.checks if c.state != "passed"} == {"profile"}
    assert "luna (demo)" in kept.reason


def test_a_full_model_needs_an_approval_and_the_ledger_names_who_gave_it(foundry: Foundry) -> None:
    foundry.register(foundry.run(profile="full"))
    checked = foundry.gate()

    request = approval_request(foundry.settings, checked, ask=False)
    with pytest.raises(RegistryError, match="needs a person's approval"):
        foundry.promote()
    foundry.approve(checked)
    promoted = foundry.promote("1", digest=checked.digest)

    assert request is not None and request["approvers"] == ["admin"]
    assert (checked.decision, promoted.decision) == ("promotable", "promoted")
    assert promoted.reason.endswith("approved by admin")
    assert promoted.checks[-1].value == "admin"
    entries = ledger.read(ledger.ledger_path(foundry.settings))
    assert [entry["action"] for entry in entries] == ["ask", "approve", "promote"]
    assert (entries[1]["who"], entries[1]["package_digest"]) == ("admin", checked.digest)


def test_a_demo_needs_an_approval_only_where_one_was_asked_for(foundry: Foundry) -> None:
    foundry.register(foundry.run())
    checked = foundry.gate()

    assert approval_request(foundry.settings, checked, ask=False) is None
    assert approval_request(foundry.settings, checked, ask=True) is not None
    with pytest.raises(RegistryError, match="needs a person's approval"):
        foundry.promote(approved=True)
    assert foundry.promote().decision == "promoted"


def test_nobody_is_asked_about_what_the_gate_refuses(foundry: Foundry) -> None:
    foundry.register(foundry.run())
    foundry.promote()
    foundry.register(foundry.run(good=False))

    kept, same = foundry.gate(), foundry.gate("1")

    assert (kept.decision, same.decision) == ("kept", "unchanged")
    assert approval_request(foundry.settings, kept, ask=True) is None
    assert approval_request(foundry.settings, same, ask=True) is None


def test_an_approval_of_another_package_promotes_nothing(foundry: Foundry) -> None:
    version = foundry.register(foundry.run(profile="full")).version
    checked = foundry.gate()
    foundry.approve(replace(checked, digest="0" * 64))

    with pytest.raises(RegistryError, match=r"in the registry, not 000000000000"):
        foundry.promote()
    with pytest.raises(RegistryError, match=r"in the registry, not 111111111111"):
        foundry.promote(str(version), digest="1" * 64)

    assert foundry.alias("champion") is None


def test_an_approval_that_a_newer_champion_overtook_is_recorded_as_superseded(
    foundry: Foundry,
) -> None:
    older, newer = foundry.run(), foundry.run(seed=1)
    foundry.register(older)
    waiting = foundry.gate()
    foundry.register(newer)
    foundry.promote("2")
    foundry.approve(waiting)

    late = foundry.promote("1", digest=waiting.digest, approved=True)

    assert (late.decision, late.alias, foundry.alias("champion")) == ("superseded", None, "2")
    last = ledger.read(ledger.ledger_path(foundry.settings))[-1]
    assert (last["action"], last["from"], last["to"]) == ("supersede", "2", "1")
    assert "by admin is superseded" in last["reason"]
    assert foundry.promote("1", approved=True).decision == "kept"
    with pytest.raises(RegistryError, match="needs a person's approval"):
        foundry.promote("1", approved=True, again=True)


def test_a_champion_that_changes_during_the_check_supersedes_the_approval(
    foundry: Foundry,
) -> None:
    for seed in (0, 1):
        foundry.register(foundry.run(seed=seed))
    foundry.approve(foundry.gate("1"))
    images = foundry.folder / "castings"

    def overtaken(_: str) -> Path:
        if foundry.alias("champion") is None:
            foundry.promote("2")
        return images

    late = promote(foundry.settings, "1", images_for=overtaken, approved=True)

    assert (late.decision, foundry.alias("champion")) == ("superseded", "2")


def test_a_rejection_withdraws_an_approval_and_each_counts_once(foundry: Foundry) -> None:
    for seed in (0, 1):
        foundry.register(foundry.run(seed=seed))
    checked = foundry.gate("1")
    foundry.approve(checked)
    foundry.approve(checked, "reject")
    with pytest.raises(RegistryError, match="needs a person's approval"):
        foundry.promote("1", approved=True)

    foundry.approve(checked)
    foundry.promote("1", approved=True)
    foundry.promote("2")
    foundry.rollback()

    assert foundry.alias("champion") == "1"
    with pytest.raises(RegistryError, match="needs a person's approval"):
        foundry.promote("2", again=True, approved=True)


def test_a_rolled_back_version_can_be_asked_about_again(foundry: Foundry) -> None:
    for seed in (0, 1):
        foundry.register(foundry.run(seed=seed))
        foundry.promote()
    foundry.rollback()

    assert foundry.gate("2").decision == "kept"
    assert foundry.gate("2", again=True).decision == "promotable"


def test_leaky_figures_of_a_full_model_are_tagged_and_never_promoted(foundry: Foundry) -> None:
    leaky = {**METRICS, "leaky": True, "protocol": "shipped"}
    version = foundry.register(foundry.run(profile="full", metrics=leaky)).version

    kept = foundry.promote()

    client = connect(foundry.server.uri)
    tags = client.get_model_version(REGISTERED_MODEL, str(version)).tags
    assert kept.decision == "kept"
    assert [c.name for c in kept.checks if c.state != "passed"] == ["split_not_leaky"]
    assert (tags["leaky"], tags["split_protocol"]) == ("true", "shipped")
    assert "**LEAKY:**" in client.get_model_version(REGISTERED_MODEL, str(version)).description


def test_a_full_model_whose_figures_do_not_say_is_broken_evidence(foundry: Foundry) -> None:
    silent = {key: value for key, value in METRICS.items() if key != "leaky"}
    foundry.register(foundry.run(profile="full", metrics=silent))

    kept = foundry.promote()

    assert [c.name for c in kept.checks if c.state == "broken"] == ["split_not_leaky"]


def test_a_leaky_demo_may_show_the_road_and_says_so(foundry: Foundry) -> None:
    foundry.register(foundry.run(metrics={**METRICS, "leaky": True, "protocol": "shipped"}))

    promoted = foundry.promote()

    (found,) = [c for c in promoted.checks if c.name == "split_not_leaky"]
    assert (promoted.decision, found.value) == ("promoted", "leaky demo")


def test_runs_carry_bounds_robustness_and_the_leak_tag(foundry: Foundry) -> None:
    decision = foundry.register(foundry.run())

    client = connect(foundry.server.uri)
    run = client.get_run(client.get_model_version(REGISTERED_MODEL, decision.version).run_id)
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    for found in (run, parent):
        assert found.data.tags["leaky"] == "false"
        assert found.data.tags["split_protocol"] == "grouped"
    assert run.data.metrics["by_casting.escape_rate_upper"] == 0.221
    assert run.data.metrics["robustness.worst.balanced_accuracy"] == 0.75
    assert run.data.metrics["leaky_seen.accuracy"] == 1.0


def test_castings_that_a_model_trained_on_are_no_evidence(foundry: Foundry) -> None:
    foundry.register(foundry.run())
    foundry.promote()
    clean = foundry.rows
    foundry.rows = [
        replace(row, split="train")
        if row.split == "test"
        else replace(row, split="test")
        if row.split == "train"
        else row
        for row in clean
    ]
    foundry.register(foundry.run(seed=1))

    kept = foundry.promote()

    assert kept.decision == "kept"
    broken = {c.name for c in kept.checks if c.state == "broken"}
    assert broken == {"images"}
    assert "broken evidence, no test casting that neither model trained on" in kept.reason


def test_an_altered_package_is_not_promoted(foundry: Foundry) -> None:
    version = foundry.register(foundry.run()).version
    weights = list((foundry.server.folder / "artifacts").rglob("package/weights.safetensors"))
    newest = max(weights, key=lambda path: path.stat().st_mtime)
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)

    kept = foundry.promote()

    assert kept.decision == "kept"
    assert [c.name for c in kept.checks if c.state == "broken"] == ["digests"]
    with pytest.raises(PackageError, match="sha256"):
        download_package(foundry.server.uri, str(version), foundry.folder / "copy")
    assert not (foundry.folder / "copy").exists()


def test_a_client_without_zdm_ml_scores_with_pickle_off(foundry: Foundry, tmp_path: Path) -> None:
    foundry.register(foundry.run())
    foundry.promote()
    script = tmp_path / "client.py"
    script.write_text(
        "import sys\n"
        "sys.modules['zdm_ml'] = None\n"
        "import mlflow, numpy as np\n"
        "model = mlflow.pyfunc.load_model('models:/casting-inspector@champion')\n"
        "dark, bright = np.full((3, 70, 90), 60, np.uint8), np.full((1, 33, 40), 180, np.uint8)\n"
        "print([float(s) for s in (*model.predict(dark), *model.predict(bright))])\n"
    )
    environ = {
        **os.environ,
        "MLFLOW_TRACKING_URI": foundry.server.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }

    answer = subprocess.run(
        [sys.executable, str(script)],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr
    scores = json.loads(answer.stdout)
    assert scores[:3] == pytest.approx([1, 1, 1], abs=0.01)
    assert scores[3] == pytest.approx(0, abs=0.01)


def test_mlflow_models_serve_answers_for_grey_images(foundry: Foundry, tmp_path: Path) -> None:
    foundry.register(foundry.run())
    foundry.promote()
    scoring = MlflowServer(tmp_path)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "--env-manager",
        "local",
        "-m",
        "models:/casting-inspector@champion",
        "--host",
        "127.0.0.1",
        "--port",
        str(scoring.port),
    ]
    environ = {
        **os.environ,
        "MLFLOW_TRACKING_URI": foundry.server.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    images = np.stack([np.full((40, 50), 60), np.full((40, 50), 180)]).tolist()

    with (tmp_path / "server.log").open("wb") as log:
        scoring.process = subprocess.Popen(
            command, env=environ, stdout=log, stderr=log, start_new_session=True
        )
    try:
        scoring.wait()
        answer = requests.post(f"{scoring.uri}/invocations", json={"inputs": images}, timeout=60)
    finally:
        scoring.kill()

    assert answer.json()["predictions"] == pytest.approx([1, 0], abs=0.01)


def test_a_dead_server_moves_nothing_and_a_restart_loses_nothing(foundry: Foundry) -> None:
    foundry.register(foundry.run())
    foundry.promote()
    foundry.register(foundry.run(seed=1))
    foundry.server.kill()

    try:
        with pytest.raises(RegistryError, match="MLflow at"):
            champion(foundry.server.uri)
        with pytest.raises(RegistryError, match="MLflow at"):
            foundry.promote()
    finally:
        foundry.server.start()

    assert foundry.alias("champion") == "1"
    assert foundry.promote().decision == "promoted"


def test_a_server_killed_during_a_registration_leaves_no_second_version(foundry: Foundry) -> None:
    foundry.register(foundry.run())
    run = foundry.run(seed=1)
    assassin = threading.Timer(1.0, foundry.server.kill)
    assassin.start()

    try:
        with contextlib.suppress(RegistryError):
            foundry.register(run)
    finally:
        assassin.join()
        foundry.server.start()
    repeated = foundry.register(run)

    client = connect(foundry.server.uri)
    versions = client.search_model_versions(f"name = '{REGISTERED_MODEL}'")
    assert sorted(version.version for version in versions) == ["1", "2"]
    assert (repeated.version, foundry.alias("challenger")) == ("2", "2")


def test_choosing_on_the_same_castings_again_is_counted(foundry: Foundry) -> None:
    decisions = [foundry.register(foundry.run(seed=seed)) for seed in range(3)]
    foundry.rows = make_castings(foundry.folder / "castings", seed=9)
    other = foundry.register(foundry.run(seed=4))

    uses = [
        next(check.value for check in decision.checks if check.name == "test_uses")
        for decision in (*decisions, other)
    ]

    assert uses == [1, 2, 3, 1]
