"""A door to MLflow that counts what is written and does harm at a chosen write, for tests."""

from __future__ import annotations

import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import requests
from local_http import LocalServer

WRITES = ("POST", "PUT", "PATCH", "DELETE")
# Searches are POST as well.
_READS = re.compile(r"/search$|/get-latest-versions$")
_IDS = re.compile(r"[0-9a-f]{32}|m-[0-9a-f]{32}")


class FaultProxy:
    """Forwards to a server at `target`; `strike` sees every write before it is passed on and after.

    What comes before is named with "before " in front. When `strike` returns True the client gets
    no answer: its connection just ends.
    """

    def __init__(self, target: str, port: int) -> None:
        self.target = target
        self.writes: list[str] = []
        self.strike: Callable[[str], bool] = lambda _: False
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def handle(self) -> None:
                # Clients are killed here: that one is gone is no news.
                try:
                    super().handle()
                except ConnectionError:
                    self.close_connection = True

        for method in (*WRITES, "GET"):
            setattr(Handler, f"do_{method}", lambda handler: proxy._forward(handler))
        server = LocalServer(Handler, port)
        self.uri, self.close = server.uri, server.close

    def _forward(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if self._is_struck(handler.command, handler.path, "before "):
            handler.close_connection = True
            return
        headers = {
            k: v for k, v in handler.headers.items() if k.lower() not in ("host", "connection")
        }
        try:
            with requests.Session() as session:
                session.trust_env = False
                answer = session.request(
                    handler.command,
                    self.target + handler.path,
                    data=body,
                    headers=headers,
                    timeout=60,
                )
        except requests.ConnectionError:
            handler.close_connection = True
            return
        if self._is_struck(handler.command, handler.path):
            handler.close_connection = True
            return
        handler.send_response(answer.status_code)
        handler.send_header("Content-Type", answer.headers.get("Content-Type", ""))
        handler.send_header("Content-Length", str(len(answer.content)))
        handler.end_headers()
        handler.wfile.write(answer.content)

    def _is_struck(self, method: str, path: str, when: str = "") -> bool:
        path = path.partition("?")[0]
        if method not in WRITES or _READS.search(path):
            return False
        step = f"{when}{method} {_IDS.sub('ID', path)}"
        self.writes.append(step)
        return self.strike(step)
