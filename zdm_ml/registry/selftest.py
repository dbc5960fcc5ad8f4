"""`python -m zdm_ml.registry.selftest FOLDER`: load a package in a clean process and test it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from zdm_ml.errors import PackageError, ZdmError

TIMEOUT_SECONDS = 300


def self_test_in_clean_process(folder: Path) -> float:
    """Return the largest deviation of the golden scores; whatever goes wrong is `PackageError`.

    Nothing that this process has loaded or changed can help the package to pass.
    """
    command = [sys.executable, "-m", "zdm_ml.registry.selftest", str(folder)]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PackageError(f"the self-test of {folder} took over {TIMEOUT_SECONDS} s") from error
    if answer.returncode != 0:
        lines = answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"]
        raise PackageError(f"self-test in a clean process: {lines[0]}")
    return float(json.loads(answer.stdout)["deviation"])


def main(arguments: list[str]) -> int:
    """Write the deviation as JSON to stdout, or the problem to stderr with exit code 1."""
    from zdm_ml.registry.package import load_package

    try:
        deviation = load_package(Path(arguments[0])).self_test()
    except ZdmError as error:
        sys.stderr.write(f"{error.problem}\n")
        return 1
    sys.stdout.write(json.dumps({"deviation": deviation}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
