"""An HTTP server on 127.0.0.1 for as long as a test needs it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LocalServer:
    """Answers by `handler`, a class without a log; port 0 takes any free one."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int = 0) -> None:
        quiet = type("Quiet", (handler,), {"log_message": lambda *_: None})
        self.http = ThreadingHTTPServer(("127.0.0.1", port), quiet)
        self.uri = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
