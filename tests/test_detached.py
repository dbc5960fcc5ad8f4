"""Programs that outlive the process that starts them."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

from zdm_ml.detached import detach


def test_a_detached_program_holds_no_file_of_its_starter(tmp_path: Path) -> None:
    """Whoever reads what the starter writes sees its end although the program lives on."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    log = tmp_path / "program.log"
    program = "import sys, time; print('up', file=sys.stderr, flush=True); time.sleep(60)"

    pid = detach([sys.executable, "-c", program], os.environ, log)

    os.close(writing)
    try:
        assert select.select([reading], [], [], 10)[0]
        assert os.read(reading, 1) == b""
        assert os.getsid(pid) == pid
        while not log.read_text():
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        assert log.read_text() == "up\n"
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
