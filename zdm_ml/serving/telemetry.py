"""What Prometheus reads at /metrics, one registry per server."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zdm_ml.registry.naming import display_name
from zdm_ml.serving.reloader import Served

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
PATHS = ("/predict", "/predict/batch", "/live", "/ready", "/model", "/metrics")
"""Paths with a label of their own; all others share one, so that a scan cannot add labels."""


class Telemetry:
    """Counts requests and verdicts; gauges are read from their owners when asked for."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "zdm_requests",
            "Requests by path and status",
            ["path", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "zdm_request_seconds",
            "Seconds per request",
            ["path"],
            registry=self._registry,
            buckets=SECONDS,
        )
        self._verdicts = Counter(
            "zdm_verdicts", "Verdicts", ["verdict", "version"], registry=self._registry
        )
        self._model = Gauge(
            "zdm_model_info",
            "1 for the version that serves",
            ["name", "version", "model", "profile", "data_md5"],
            registry=self._registry,
        )

    def watch(self, name: str, description: str, read: Callable[[], float]) -> None:
        """Add a gauge that calls `read` whenever it is scraped."""
        Gauge(name, description, registry=self._registry).set_function(read)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count one finished request."""
        label = path if path in PATHS else "other"
        self._requests.labels(label, str(status)).inc()
        self._seconds.labels(label).observe(seconds)

    def verdict(self, verdict: str, version: str) -> None:
        """Count one verdict."""
        self._verdicts.labels(verdict, version).inc()

    def scrape(self, name: str, served: Served | None) -> bytes:
        """Return all metrics in Prometheus' text format."""
        self._model.clear()
        if served:
            info = served.package.info
            model = display_name(info.model_name, info.profile)
            self._model.labels(
                name, served.champion.version, model, info.profile, info.data_md5
            ).set(1)
        return generate_latest(self._registry)


class Measured:
    """ASGI middleware that reports status and duration of every HTTP request."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and measure it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            self._telemetry.request(scope["path"], status, time.perf_counter() - start)
