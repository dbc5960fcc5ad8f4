"""Follows the alias `champion`: loads a new one beside the old one, then swaps one reference."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from zdm_ml.errors import RegistryError, ZdmError
from zdm_ml.registry.package import Package
from zdm_ml.serving.packages import PackageCache
from zdm_ml.serving.predictor import Predictor
from zdm_ml.serving.source import Champion, PackageSource

log = logging.getLogger(__name__)

RETRY_SECONDS = (2.0, 60.0)
"""First and longest pause between attempts to load the same version."""

NO_MODEL = "no approved model"


@dataclass(frozen=True)
class Served:
    """One verified version; a request uses the same one from its start to its answer."""

    champion: Champion
    package: Package
    predictor: Predictor
    since: datetime


@dataclass(frozen=True)
class State:
    """`problem` is what a person should know; `origin` says who named the version."""

    served: Served | None
    problem: str
    origin: Literal["registry", "local copy"] = "registry"


class BackOff:
    """Longer and longer pauses between attempts to load one and the same version."""

    def __init__(self) -> None:
        self._champion: Champion | None = None
        self._pause = 0.0
        self._until = 0.0

    def over(self, champion: Champion) -> bool:
        """Return whether the version may be tried; another one than the failed one always may."""
        return champion != self._champion or time.monotonic() >= self._until

    def extend(self, champion: Champion) -> None:
        """Note a failed attempt."""
        first, longest = RETRY_SECONDS
        again = champion == self._champion
        self._pause = min(self._pause * 2, longest) if again else first
        self._champion, self._until = champion, time.monotonic() + self._pause


class Reloader:
    """`state` is replaced as a whole, so a reader never sees half a swap."""

    def __init__(
        self, source: PackageSource, cache: PackageCache, *, max_pixels: int, poll_seconds: float
    ) -> None:
        self._source = source
        self._cache = cache
        self._max_pixels = max_pixels
        self._poll_seconds = poll_seconds
        self._stopping = threading.Event()
        self._back_off = BackOff()
        self._thread = threading.Thread(target=self._run, name="reloader", daemon=True)
        self.state = State(None, f"{NO_MODEL}: the registry was not asked yet")

    def start(self) -> None:
        """Begin to poll, in a thread of its own."""
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Stop polling; a call that hangs in the registry is left behind after `seconds`."""
        self._stopping.set()
        self._thread.join(seconds)

    def poll(self) -> None:
        """Ask the registry once and follow its answer; failures end up in `state.problem`."""
        try:
            champion = self._source.champion()
            if champion is None:
                self._withdraw()
            elif self.state.served and self.state.served.champion == champion:
                self._set(State(self.state.served, ""))
            elif self._back_off.over(champion):
                self._follow(champion)
        except RegistryError as error:
            self._go_on_without_registry(error)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.poll()
            except Exception as error:
                # Whatever happens in here, the server goes on answering with what it has.
                log.exception("polling the registry failed")
                self._set(replace(self.state, problem=f"polling failed: {error!r}"))
            self._stopping.wait(self._poll_seconds)

    def _follow(self, champion: Champion) -> None:
        try:
            package = self._cache.obtain(champion, self._source)
        except (ZdmError, OSError) as error:
            self._back_off.extend(champion)
            self._keep(f"version {champion.version} was not loaded: {_line(error)}")
            return
        self._back_off = BackOff()
        if self._is_still(champion):
            self._serve(champion, package, "registry", "")

    def _is_still(self, champion: Champion) -> bool:
        """Ask again: loading takes seconds, and a rollback meanwhile must not be overtaken."""
        try:
            return self._source.champion() == champion
        except RegistryError:
            return True

    def _serve(
        self,
        champion: Champion,
        package: Package,
        origin: Literal["registry", "local copy"],
        problem: str,
    ) -> None:
        before = self.state.served
        predictor = Predictor(package.net, package.ruling, max_pixels=self._max_pixels)
        served = Served(champion, package, predictor, datetime.now(UTC))
        self._set(State(served, problem, origin))
        log.info("version %s (%s) serves", champion.version, package.info.model_name)
        try:
            self._cache.remember(replace(champion, digest=package.info.digest))
            digests = {package.info.digest, before.package.info.digest if before else ""}
            self._cache.prune(keep=digests)
        except OSError as error:
            log.warning("the local copy of version %s is not noted: %s", champion.version, error)

    def _withdraw(self) -> None:
        self._set(State(None, f"{NO_MODEL}: the registry names no champion"))
        self._cache.forget()

    def _go_on_without_registry(self, error: RegistryError) -> None:
        away = f"the registry is out of reach ({error.problem})"
        if self.state.served:
            self._keep(away)
            return
        try:
            last = self._cache.last()
        except ZdmError as broken:
            self._set(State(None, f"{NO_MODEL}: {away}; {_line(broken)}"))
            return
        if last is None:
            self._set(State(None, f"{NO_MODEL}: {away}, and there is no local copy"))
        else:
            problem = f"{away}; the last verified local copy serves, version {last[0].version}"
            self._serve(*last, "local copy", problem)

    def _keep(self, problem: str) -> None:
        served = self.state.served
        if served:
            self._set(
                replace(self.state, problem=f"{problem}; version {served.champion.version} serves")
            )
        else:
            self._set(replace(self.state, problem=f"{NO_MODEL}: {problem}"))

    def _set(self, state: State) -> None:
        if state.problem != self.state.problem:
            if state.problem:
                log.warning("%s", state.problem)
            elif self.state.served:
                log.info("the registry answers again, nothing is wrong")
        self.state = state


def _line(error: BaseException) -> str:
    return error.problem if isinstance(error, ZdmError) else str(error)
