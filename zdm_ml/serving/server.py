"""Run the inference server in this process, on a port that is proven free first."""

from __future__ import annotations

import errno
import socket

import uvicorn

from zdm_ml.errors import StackError
from zdm_ml.serving.app import create_app
from zdm_ml.serving.config import ServingConfig
from zdm_ml.serving.source import PackageSource


def serve(config: ServingConfig, source: PackageSource, *, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM, then answer what is in work and store it."""
    with listen(host, port) as listener:
        build(config, source).run(sockets=[listener])


def build(config: ServingConfig, source: PackageSource) -> uvicorn.Server:
    """Return the server, not yet running; logging stays as the process has set it up."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(config, source),
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=10,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; a taken port raises `StackError`."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        problem = "is in use" if error.errno == errno.EADDRINUSE else f"refused: {error.strerror}"
        raise StackError(
            f"port {port} on {host} {problem}",
            hint="stop what holds it, or set ZDM_INFERENCE_PORT to a free port",
        ) from error
    return listener
