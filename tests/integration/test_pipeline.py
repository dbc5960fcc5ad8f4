"""The pipeline as DVC runs it, on a checkout of its own, with two small models."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from zdm_ml.data.checkout import materialise
from zdm_ml.data.identity import dvc_folder_hash
from zdm_ml.data.synthetic import make_synthetic
from zdm_ml.data.versions import versions
from zdm_ml.files import write_text
from zdm_ml.pipeline.dvcfile import read_pipeline
from zdm_ml.pipeline.profiles import run_params
from zdm_ml.pipeline.retention import collect
from zdm_ml.settings import load_settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

BIN = Path(sys.executable).parent


@dataclass
class Desk:
    """A checkout and the commands that a person types in it."""

    root: Path

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("ZDM_")}
        environ["PATH"] = f"{BIN}{os.pathsep}{environ['PATH']}"
        done = subprocess.run(
            command, cwd=self.root, env=environ, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def ran(self) -> list[str]:
        """Run `dvc repro` and return the stages that it ran."""
        done = self.run("dvc", "repro")
        return re.findall(r"Running stage '([^']+)'", done.stdout + done.stderr)

    def set_params(self, pattern: str, replacement: str) -> None:
        path = self.root / "params.yaml"
        text, count = re.subn(pattern, replacement, path.read_text())
        assert count == 1
        write_text(path, text)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered castings with parts.csv."""
    folder = tmp_path_factory.mktemp("source") / "castings"
    make_synthetic(folder, parts=24, views=4, seed=11, size=96)
    return folder


@pytest.fixture(scope="module")
def desk(make_checkout: Callable[[], Path], source: Path) -> Desk:
    """A checkout with castings and params for two models under profile smoke, all stages run."""
    root = make_checkout()
    desk = Desk(root)
    params = root / "params.yaml"
    write_text(
        params, run_params(params.read_text(), root, profile="smoke", models=["luna", "resnet18"])
    )
    imported = desk.run("zdm", "data", "import", str(source), "--json")
    assert json.loads(imported.stdout.splitlines()[-1])["changed"] is True
    desk.run("dvc", "repro")
    return desk


def test_the_rendered_edges_are_those_of_dvc_dag(make_checkout: Callable[[], Path]) -> None:
    desk = Desk(make_checkout())

    dot = desk.run("dvc", "dag", "--dot").stdout

    # dvc draws an arrow from what is read to what reads it.
    drawn = set(re.findall(r'"([^"]+)" -> "([^"]+)"', dot))
    rendered = {
        (upstream, stage.name)
        for stage in read_pipeline(desk.root).stages
        for upstream in stage.upstream
    }
    assert drawn == rendered


def test_a_second_repro_runs_nothing(desk: Desk) -> None:
    assert desk.ran() == []


def test_one_models_parameters_rerun_that_model_and_the_comparison(desk: Desk) -> None:
    desk.set_params(r"(luna:\n    input_size: )64", r"\g<1>80")

    ran = desk.ran()

    assert sorted(ran) == ["confirm", "evaluate@luna", "latency", "select", "train@luna"]


def test_a_model_trained_alone_into_a_folder_predicts(desk: Desk, tmp_path: Path) -> None:
    """The second recipe takes the place of the first one in the folder, its threshold too."""
    image = str(next((desk.root / "data" / "castings").rglob("*.jpeg")))
    train = ["zdm", "train", "--model", "luna", "--out", str(tmp_path / "alone"), "--recipe"]

    answers, sources = [], []
    for recipe in ("modern", "reference"):
        desk.run(*train, recipe)
        sources.append(json.loads((tmp_path / "alone" / "decision.json").read_text()))
        predicted = desk.run("zdm", "predict", "--model", str(tmp_path / "alone"), "--json", image)
        answers.append(json.loads(predicted.stdout))

    assert [answer["threshold"] for answer in answers] == [it["threshold"] for it in sources]
    assert [it["calibration"]["source"].startswith("all castings") for it in sources] == [
        True,
        False,
    ]
    assert (tmp_path / "alone" / "history.png").is_file()
    assert desk.ran() == []


def test_a_recipe_for_the_stage_itself_is_refused(desk: Desk) -> None:
    done = desk.run("zdm", "train", "--model", "luna", "--recipe", "reference", check=False)

    assert done.returncode == 1
    assert "--out" in done.stderr


def test_importing_the_same_castings_again_changes_nothing(desk: Desk, source: Path) -> None:
    done = desk.run("zdm", "data", "import", str(source), "--json")

    assert json.loads(done.stdout.splitlines()[-1])["changed"] is False
    assert len(desk.run("zdm", "data", "log").stdout.splitlines()) == 1


def test_metrics_and_plots_can_be_shown(desk: Desk, tmp_path: Path) -> None:
    plots = tmp_path / "plots"

    metrics = json.loads(desk.run("dvc", "metrics", "show", "--json").stdout)
    desk.run("dvc", "plots", "show", "--out", str(plots))

    assert "evaluation/luna/metrics.json" in metrics[""]["data"]
    assert "ROC of luna" in (plots / "index.html").read_text()


def test_an_import_leaves_the_users_branch_alone(desk: Desk) -> None:
    status = desk.run("git", "status", "--porcelain").stdout.splitlines()

    assert sorted(line[3:] for line in status) == ["dvc.lock", "params.yaml"]


def test_a_failing_stage_says_how_to_go_on(desk: Desk) -> None:
    before = (desk.root / "params.yaml").read_text()
    desk.set_params(r"device: auto", "device: tpu")

    done = desk.run("dvc", "repro", check=False)

    write_text(desk.root / "params.yaml", before)
    assert done.returncode != 0
    assert "train.device" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_run_elsewhere_disturbs_neither_checkout_nor_run(desk: Desk) -> None:
    """A run's workspace is planned from the commit; the checkout keeps its own files and lock."""
    desk.run("git", "add", "--all")
    desk.run("git", "commit", "--quiet", "-m", "desk")
    lock = (desk.root / "dvc.lock").read_bytes()

    plan = ["zdm", "workspace", "plan", "--run-id", "r1", "--profile", "smoke", "--models", "luna"]
    record = json.loads(desk.run(*plan).stdout.splitlines()[-1])
    for stage in record["stale"]:
        desk.run("zdm", "workspace", "stage", "--run-id", "r1", stage)
    desk.run("zdm", "workspace", "publish", "--run-id", "r1")

    assert (desk.root / "dvc.lock").read_bytes() == lock
    assert desk.run("git", "status", "--porcelain").stdout == ""
    assert desk.run("git", "tag", "--list", "run/*").stdout.strip() == "run/r1"


def test_the_same_run_again_has_nothing_stale(desk: Desk) -> None:
    plan = ["zdm", "workspace", "plan", "--profile", "smoke", "--models", "luna"]

    again = json.loads(desk.run(*plan, "--run-id", "r2").stdout.splitlines()[-1])
    forced = json.loads(
        desk.run(*plan, "--run-id", "r3", "--force", "true").stdout.splitlines()[-1]
    )

    assert again["stale"] == []
    assert forced["stale"] == forced["stages"]


def test_a_published_run_comes_back_byte_by_byte(desk: Desk, tmp_path: Path) -> None:
    weights = next((desk.root / ".zdm" / "runs" / "r1" / "models").rglob("weights.safetensors"))
    kept = weights.read_bytes()

    desk.run("git", "clone", "--quiet", str(desk.root), str(tmp_path / "clone"))
    clone = Desk(tmp_path / "clone")
    clone.run("git", "checkout", "--quiet", "run/r1")
    clone.run(
        "dvc", "remote", "modify", "--local", "local", "url", str(desk.root / ".zdm" / "remote")
    )
    clone.run("dvc", "pull", "--quiet")

    assert (clone.root / "models" / "luna" / "weights.safetensors").read_bytes() == kept


def test_gc_forgets_old_runs_and_keeps_what_is_needed(desk: Desk) -> None:
    """r1 is published; r2 and r3 are workspaces; every data version stays whole."""
    (desk.root / ".dvc" / "cache" / "files" / "md5" / "00").mkdir(parents=True, exist_ok=True)
    orphan = desk.root / ".dvc" / "cache" / "files" / "md5" / "00" / ("0" * 30)
    orphan.write_text("nothing names this")
    settings = load_settings({}, desk.root)

    collected = collect(settings, keep=1, needed={"r1"})

    assert collected.runs == 1
    assert not orphan.exists()
    assert desk.run("git", "tag", "--list", "run/*").stdout.strip() == "run/r1"
    version = versions(settings.root)[0]
    assert dvc_folder_hash(materialise(settings, version.md5)) == version.md5


def test_images_that_no_version_holds_are_kept_aside(desk: Desk, source: Path) -> None:
    stray = desk.root / "data" / "castings" / "test" / "ok_front" / "stray.txt"
    stray.write_text("somebody's notes")

    desk.run("zdm", "data", "import", str(source))

    assert not stray.exists()
    assert len(list((desk.root / ".zdm" / "replaced").rglob("stray.txt"))) == 1


def test_an_experiment_can_set_a_parameter(desk: Desk) -> None:
    done = desk.run("dvc", "exp", "run", "-S", "latency.repeats=4", "latency")
    desk.run("git", "checkout", "--quiet", "--", "params.yaml", "dvc.lock")

    ran = re.findall(r"Running stage '([^']+)'", done.stdout + done.stderr)
    assert ran == ["latency"]


def test_transfer_strategies_are_compared_in_one_table(desk: Desk) -> None:
    done = desk.run(
        *("zdm", "experiment", "transfer", "--models", "luna", "--profile", "smoke", "--json")
    )

    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row["transfer"] for row in rows] == ["full", "partial", "feature_extraction"]
    trainable = [row["trainable"] for row in rows]
    assert trainable == sorted(trainable, reverse=True)


def test_one_failed_model_is_reported_and_the_others_are_ranked(desk: Desk) -> None:
    plan = ["zdm", "workspace", "plan", "--run-id", "r5", "--profile", "smoke", "--force", "true"]
    desk.run(*plan, "--models", "luna,resnet18")
    root = desk.root / ".zdm" / "runs" / "r5"
    Desk(root).set_params(r"(resnet18: \{input_size: )32", r"\g<1>5")

    codes = {
        stage: desk.run(
            "zdm", "workspace", "stage", "--run-id", "r5", stage, check=False
        ).returncode
        for stage in (
            *("audit", "split", "train@luna", "train@resnet18"),
            *("evaluate@luna", "latency", "confirm", "select"),
        )
    }

    selection = json.loads((root / "reports" / "selection.json").read_text())
    assert [stage for stage, code in codes.items() if code] == ["train@resnet18"]
    assert (selection["winner"], selection["eligible"]) == ("luna", True)
    assert "input_size" in selection["rows"][-1]["reason"]


def test_too_few_models_make_a_run_ineligible(desk: Desk) -> None:
    root = desk.root / ".zdm" / "runs" / "r5"
    Desk(root).set_params(r"min_models: 1", "min_models: 2")

    desk.run("zdm", "workspace", "stage", "--run-id", "r5", "select")

    selection = json.loads((root / "reports" / "selection.json").read_text())
    assert selection["eligible"] is False
    assert "1 of 2 models" in selection["reason"]


def test_a_killed_training_goes_on_at_its_epoch(desk: Desk) -> None:
    """SIGKILL from outside, of the whole process group, as a lost worker would suffer it."""
    params = desk.root / "params.yaml"
    before = params.read_text()
    desk.set_params(r"(luna:\n    input_size: )80", r"\g<1>96")
    desk.set_params(r"(modern: \{crossfit: .*scratch: \{)", r"\g<1>epochs: 400, ")
    environ = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(
        ["zdm", "train", "--model", "luna"],
        cwd=desk.root,
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as first:
        assert first.stderr is not None
        while "epoch 3/400" not in first.stderr.readline():
            assert first.poll() is None
        os.killpg(first.pid, signal.SIGKILL)

    with subprocess.Popen(
        ["zdm", "train", "--model", "luna"],
        cwd=desk.root,
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as second:
        assert second.stderr is not None
        seen = []
        while "/400 " not in (line := second.stderr.readline()):
            seen.append(line)
            assert second.poll() is None
        os.killpg(second.pid, signal.SIGKILL)

    write_text(params, before)
    assert any("goes on after epoch" in line for line in seen)
    assert "epoch 1/400" not in line


def test_a_run_whose_stages_ran_again_is_published_anew(desk: Desk) -> None:
    desk.run("zdm", "workspace", "publish", "--run-id", "r5")
    root = desk.root / ".zdm" / "runs" / "r5"
    Desk(root).set_params(r"min_models: 2", "min_models: 1")
    desk.run("zdm", "workspace", "stage", "--run-id", "r5", "select")

    refused = desk.run("zdm", "register", "--run-id", "r5", check=False)
    desk.run("zdm", "workspace", "publish", "--run-id", "r5")

    assert "is not published" in refused.stderr
    tags = desk.run("git", "tag", "--list", "run/r5*").stdout.split()
    assert tags == ["run/r5", "run/r5.1"]
    published = desk.run("git", "show", "run/r5:dvc.lock").stdout
    assert published == (root / "dvc.lock").read_text()


def test_a_forced_stage_that_is_cleared_has_nothing_to_do(desk: Desk) -> None:
    again = desk.run("zdm", "workspace", "stage", "--run-id", "r5", "train@luna")

    assert "Running stage" not in again.stdout
