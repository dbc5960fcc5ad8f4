"""Harm from outside between every two steps of register, gate and promote, and what is left.

A proxy before a real MLflow server sees each write once the server has done it. There the process
is killed, or the server, and nobody gets an answer. The tests share a registry; each brings a run
of its own, and what it repeats has to end with that run's version as champion.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_proxy import FaultProxy
from foundry import Foundry
from mlflow_server import MlflowServer
from ports import free_port
from promotion_road import REFUSED, Road
from safetensors.torch import load, save

from zdm_ml.errors import ZdmError
from zdm_ml.files import read_json, write_json
from zdm_ml.registry import ledger
from zdm_ml.registry.connection import connect
from zdm_ml.registry.finished import FinishedRun
from zdm_ml.registry.package import load_package
from zdm_ml.registry.versions import all_versions, download_package

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

API = "/api/2.0/mlflow"
GATED = "the gate's packet is filed with the version"
STEPS = {
    "the training is on record": f"POST {API}/runs/update",
    "the model has a name": f"POST {API}/logged-models",
    "a file of the model is uploaded": "weights.safetensors",
    "the model is finished": f"PATCH {API}/logged-models/ID",
    "the version exists": f"POST {API}/model-versions/create",
    "the version is challenger": f"POST {API}/registered-models/alias",
    "the version is announced": f"POST {API}/model-versions/set-tag",
    GATED: "packet.html",
    "the old champion is previous": f"POST {API}/registered-models/alias#2",
    "the version is champion": f"POST {API}/registered-models/alias#3",
    "no mark of a rollback is left": f"DELETE {API}/model-versions/delete-tag",
    "the ledger has its line": f"before POST {API}/registered-models/set-tag",
    "the line is anchored": f"POST {API}/registered-models/set-tag",
}
"""Each step, and the write that ends it, or follows it: the end of its name, and how often."""
PATIENCE = 250
"""Seconds that a road may take on a busy machine."""
KILLED, DEAD = "the process is killed", "MLflow is killed"


@dataclass
class Drills:
    """A foundry whose MLflow server stands behind a proxy; its first champion is version 1."""

    foundry: Foundry
    proxy: FaultProxy

    def road(
        self,
        run: FinishedRun,
        strike: Callable[[str], bool] = lambda _: False,
        *,
        gate_first: bool = False,
    ) -> BaseProcess:
        """Start a process that takes a run to production through the proxy, which may `strike`."""
        self.proxy.strike = strike
        settings = replace(self.foundry.settings, mlflow_uri=self.proxy.uri)
        road = Road(settings, run, self.foundry.folder / "castings", gate_first)
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=road)
        process.start()
        return process

    def drill(self, run: FinishedRun, step: str, fault: str) -> int:
        """Take a run on the road, do harm at a step, and return how the process ended."""
        wanted, _, count = STEPS[step].partition("#")
        early = wanted.startswith("before")
        left, struck, process = [int(count or 1)], threading.Event(), None

        def strike(write: str) -> bool:
            left[0] -= write.endswith(wanted) and write.startswith("before") == early
            if left[0] or struck.is_set():
                return struck.is_set()
            struck.set()
            if fault == KILLED:
                started.wait(10)
                assert process is not None and process.pid is not None
                process.kill()
            else:
                self.foundry.server.kill()
            return True

        started = threading.Event()
        process = self.road(run, strike, gate_first=step == GATED)
        started.set()
        process.join(PATIENCE)
        if self.foundry.server.process is None:
            self.foundry.server.start()
        assert struck.is_set(), self.proxy.writes
        assert process.exitcode is not None
        return process.exitcode


@pytest.fixture(scope="module")
def drills(
    tmp_path_factory: pytest.TempPathFactory, project: Path, server: MlflowServer
) -> Iterator[Drills]:
    multiprocessing.get_context("forkserver").set_forkserver_preload(["promotion_road", "mlflow"])
    foundry = Foundry(tmp_path_factory.mktemp("drills"), project, server)
    proxy = FaultProxy(server.uri, free_port())
    foundry.champions(1)
    yield Drills(foundry, proxy)
    proxy.close()


def assert_complete_champion(foundry: Foundry, folder: Path) -> str:
    """The alias points to a version whose package is whole and scores as it did; return it."""
    champion = foundry.alias("champion")
    assert champion is not None
    package = download_package(foundry.server.uri, champion, folder / "champion")
    load_package(package).self_test()
    return champion


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("fault", [KILLED, DEAD])
def test_harm_after(step: str, fault: str, drills: Drills, tmp_path: Path) -> None:
    foundry = drills.foundry
    run = foundry.run(seed=200 + foundry.runs)
    before = foundry.alias("champion")
    known = {str(version.version) for version in versions(foundry)}

    ended = drills.drill(run, step, fault)

    assert ended == (-signal.SIGKILL if fault == KILLED else REFUSED)
    left = assert_complete_champion(foundry, tmp_path)
    fresh = {str(version.version) for version in versions(foundry)} - known
    assert {left} <= {before} | fresh

    repeated = drills.road(run)
    repeated.join(PATIENCE)

    assert repeated.exitcode == 0
    (made,) = {str(version.version) for version in versions(foundry)} - known
    assert foundry.alias("champion") == made
    assert foundry.alias("previous") == before
    # The chain holds, is anchored, and has one line of this promotion.
    moves = [line for line in foundry.decisions() if line["action"] in ledger.MOVES]
    assert [line["to"] for line in moves].count(made) == 1


def flip_a_bit(model: Path) -> None:
    weights = model / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def swap_the_classes(model: Path) -> None:
    spec = read_json(model / "net.json")
    write_json(model / "net.json", spec | {"classes": spec["classes"][::-1]})


def spoil_the_weights(model: Path) -> None:
    """Put NaN into the weights and their digest into net.json, as a broken training would."""
    state = load((model / "weights.safetensors").read_bytes())
    name = next(name for name, tensor in state.items() if tensor.is_floating_point())
    content = save(state | {name: torch.full_like(state[name], torch.nan)})
    (model / "weights.safetensors").write_bytes(content)
    spec = read_json(model / "net.json")
    write_json(model / "net.json", spec | {"digest": hashlib.sha256(content).hexdigest()})


@pytest.mark.parametrize("harm", [flip_a_bit, swap_the_classes, spoil_the_weights])
def test_a_version_whose_files_were_harmed_is_never_promoted(
    harm: Callable[[Path], None], drills: Drills, tmp_path: Path
) -> None:
    foundry = drills.foundry
    run, before = foundry.run(seed=200 + foundry.runs), foundry.alias("champion")
    version = foundry.register(run).version
    artifacts = (foundry.server.folder / "artifacts").rglob("package/weights.safetensors")
    harm(max(artifacts, key=lambda path: path.stat().st_mtime_ns).parent)

    kept = foundry.promote()
    repeated = drills.road(run)
    repeated.join(PATIENCE)

    assert (kept.decision, kept.version) == ("kept", version)
    assert [check.name for check in kept.checks if check.state == "broken"] == ["digests"]
    assert repeated.exitcode == 0
    assert foundry.alias("champion") == before
    assert_complete_champion(foundry, tmp_path)


@pytest.mark.parametrize(
    ("harm", "problem"), [(swap_the_classes, "opposite"), (spoil_the_weights, "NaN")]
)
def test_a_run_whose_net_was_harmed_makes_no_version(
    harm: Callable[[Path], None], problem: str, drills: Drills
) -> None:
    foundry = drills.foundry
    run, known = foundry.run(seed=200 + foundry.runs), len(versions(foundry))
    harm(run.root / "models" / "luna")

    with pytest.raises(ZdmError, match=problem):
        foundry.register(run)

    assert len(versions(foundry)) == known


def test_of_two_promotions_at_once_the_newer_ends_as_champion(drills: Drills) -> None:
    foundry = drills.foundry
    runs = [foundry.run(seed=200 + foundry.runs) for _ in range(2)]
    both, met = threading.Barrier(2, timeout=120), [0]

    def strike(write: str) -> bool:
        if write.startswith("before") and write.endswith("packet.html") and met[0] < 2:
            met[0] += 1
            both.wait()  # until both stand before the lock, the gate behind them
        return False

    roads = [drills.road(run, strike) for run in runs]
    for road in roads:
        road.join(240)

    assert [road.exitcode for road in roads] == [0, 0]
    assert met == [2]
    made = {str(version.tags["run_id"]): str(version.version) for version in versions(foundry)}
    assert foundry.alias("champion") == made[runs[1].record.run_id]


def test_a_rollback_while_the_gate_looks_is_kept_in_mind(drills: Drills) -> None:
    foundry = drills.foundry
    foundry.champions(2)
    run, left = foundry.run(seed=200 + foundry.runs), foundry.alias("previous")
    pages: list[str] = []

    def strike(write: str) -> bool:
        if write.endswith("packet.html") and not write.startswith("before"):
            pages.append(write)
            if len(pages) == 1:  # the gate has spoken, and the lock is free
                foundry.rollback()
        return False

    promotion = drills.road(run, strike)
    promotion.join(240)

    assert promotion.exitcode == 0
    back, forth = foundry.decisions()[-2:]
    assert (back["action"], back["to"]) == ("rollback", left)
    assert (forth["action"], forth["from"]) == ("promote", left)
    assert foundry.alias("champion") == forth["to"]


def test_a_rollback_waits_for_an_alias_that_is_moving(drills: Drills) -> None:
    foundry = drills.foundry
    foundry.champions(1)
    run, before = foundry.run(seed=200 + foundry.runs), foundry.alias("champion")
    aliases: list[str] = []
    waited: list[bool] = []
    rollback = threading.Thread(target=foundry.rollback)

    def strike(write: str) -> bool:
        if write.endswith("registered-models/alias") and not write.startswith("before"):
            aliases.append(write)
            if len(aliases) == 2:  # `challenger` was the first, now `previous`
                rollback.start()
                rollback.join(15)  # alone it takes five seconds
                waited.append(rollback.is_alive())
        return False

    promotion = drills.road(run, strike)
    promotion.join(240)
    rollback.join(240)

    assert promotion.exitcode == 0
    assert waited == [True]
    forth, back = foundry.decisions()[-2:]
    assert (forth["action"], forth["from"]) == ("promote", before)
    assert (back["action"], back["from"], back["to"]) == ("rollback", forth["to"], before)
    assert foundry.alias("champion") == before


def versions(foundry: Foundry) -> list[Any]:
    return list(all_versions(connect(foundry.server.uri)))
