import socket

import pytest

from zdm_ml.errors import StackError
from zdm_ml.serving.server import listen


def test_a_taken_port_is_named_with_the_variable_that_moves_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(StackError, match=rf"port {port} (.|\n)*ZDM_INFERENCE_PORT"):
            listen("127.0.0.1", port)


def test_two_servers_that_start_together_cannot_share_a_port() -> None:
    with (
        listen("127.0.0.1", 0) as first,
        pytest.raises(StackError, match="in use"),
    ):
        listen("127.0.0.1", first.getsockname()[1])
