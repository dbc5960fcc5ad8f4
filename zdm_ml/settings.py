"""Where things live and which ports are used: read from the environment, in one place."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zdm_ml.errors import ConfigError

HOST = "127.0.0.1"
AIRFLOW_ROLES = ("viewer", "user", "op", "admin")
REGISTERED_MODEL = "casting-inspector"
EXPERIMENT = "casting-retraining"


@dataclass(frozen=True)
class Settings:
    """`root` is the checkout, `home` the state folder (`.zdm/` of the main checkout).

    `inbox` is a folder or any URL that fsspec reads. This process is `rank` of the `world_size`
    that `torchrun` started, and `local_rank` of those on this machine. `airflow_users` are roles by
    login name, beside `admin`.
    """

    root: Path
    home: Path
    airflow_port: int
    mlflow_port: int
    inference_port: int
    mlflow_uri: str
    store_url: str
    weights_dir: Path | None
    schedule: str
    inbox: str
    intake_schedule: str
    gpu_slots: int
    airflow_users: Mapping[str, str]
    run_id: str | None
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @property
    def airflow_url(self) -> str:
        """Base URL of Airflow's API server and UI."""
        return f"http://{HOST}:{self.airflow_port}"

    @property
    def inference_url(self) -> str:
        """Base URL of the inference server."""
        return f"http://{HOST}:{self.inference_port}"


def load_settings(environ: Mapping[str, str] | None = None, root: Path | None = None) -> Settings:
    """Read the settings: the environment first, then the ports of the stack, then defaults.

    Variables: ZDM_ROOT, ZDM_HOME, ZDM_AIRFLOW_PORT, ZDM_MLFLOW_PORT, ZDM_INFERENCE_PORT,
    MLFLOW_TRACKING_URI, ZDM_STORE_URL, ZDM_WEIGHTS_DIR, ZDM_SCHEDULE, ZDM_INBOX,
    ZDM_INTAKE_SCHEDULE, ZDM_GPU_SLOTS, ZDM_AIRFLOW_USERS, ZDM_RUN_ID; RANK, LOCAL_RANK and
    WORLD_SIZE are torchrun's.
    """
    env = os.environ if environ is None else environ
    root = (root or Path(env.get("ZDM_ROOT") or _find_root(Path.cwd()))).resolve()
    home = Path(env.get("ZDM_HOME") or _main_checkout(root) / ".zdm").resolve()
    env = {**_stack_ports(home), **env}
    mlflow_port = _number(env, "ZDM_MLFLOW_PORT", 5000)
    weights_dir = env.get("ZDM_WEIGHTS_DIR")
    return Settings(
        root=root,
        home=home,
        airflow_port=_number(env, "ZDM_AIRFLOW_PORT", 8080),
        mlflow_port=mlflow_port,
        inference_port=_number(env, "ZDM_INFERENCE_PORT", 8000),
        mlflow_uri=env.get("MLFLOW_TRACKING_URI") or f"http://{HOST}:{mlflow_port}",
        store_url=env.get("ZDM_STORE_URL") or f"sqlite:///{home / 'predictions.db'}",
        weights_dir=Path(weights_dir) if weights_dir else None,
        schedule=env.get("ZDM_SCHEDULE") or "0 3 * * 0",
        inbox=env.get("ZDM_INBOX") or str(home / "inbox"),
        intake_schedule=env.get("ZDM_INTAKE_SCHEDULE") or "*/15 * * * *",
        gpu_slots=max(1, _number(env, "ZDM_GPU_SLOTS", 1)),
        airflow_users=_users(env.get("ZDM_AIRFLOW_USERS", "")),
        run_id=env.get("ZDM_RUN_ID") or None,
        **_place_among_processes(env),
    )


def make_home(home: Path) -> Path:
    """Create the state folder, readable by its owner alone, and prove that it can be written."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o700)
        with tempfile.TemporaryFile(dir=home) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
    except OSError as error:
        raise ConfigError(
            f"state folder {home} cannot be written: {error.strerror}",
            hint="free some space, correct its owner, or set ZDM_HOME to another folder",
        ) from error
    return home


def _place_among_processes(env: Mapping[str, str]) -> dict[str, int]:
    """Return rank, local_rank and world_size where there are several; ranks alone mean nothing."""
    count = _number(env, "WORLD_SIZE", 1)
    if count <= 1:
        return {}
    rank = _number(env, "RANK", 0)
    return {"rank": rank, "local_rank": _number(env, "LOCAL_RANK", rank), "world_size": count}


def _number(env: Mapping[str, str], key: str, default: int) -> int:
    text = env.get(key) or str(default)
    if not text.isdigit():
        raise ConfigError(
            f"{key}={text!r} is not a whole number", hint=f"unset {key} or correct it"
        )
    return int(text)


def _users(text: str) -> dict[str, str]:
    """Return roles by login name of `anna:user,ben:viewer`; without a role it is `user`."""
    pairs = (word.strip().partition(":") for word in text.split(",") if word.strip())
    users = {name: role or "user" for name, _, role in pairs}
    for name, role in users.items():
        if not name or role not in AIRFLOW_ROLES:
            raise ConfigError(
                f"ZDM_AIRFLOW_USERS: {name or 'a user without a name'} cannot have role {role!r}",
                hint=f"write name:role, with role one of {', '.join(AIRFLOW_ROLES)}",
            )
    return users


def _stack_ports(home: Path) -> dict[str, str]:
    """Return the ports that `zdm up` chose last, so that a second shell finds the same servers."""
    try:
        ports: dict[str, int] = json.loads((home / "stack.json").read_text())["ports"]
    except (OSError, ValueError, KeyError):
        return {}
    return {f"ZDM_{name.upper()}_PORT": str(port) for name, port in ports.items()}


def _find_root(start: Path) -> Path:
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
            return folder
    raise ConfigError(
        f"{start} is not inside the project: no dvc.yaml and params.yaml above it",
        hint="change into the checkout, or set ZDM_ROOT",
    )


def _main_checkout(root: Path) -> Path:
    """Return the checkout that owns `root`'s git folder: `root` itself unless it is a worktree."""
    pointer = root / ".git"
    if not pointer.is_file():
        return root
    git_dir = Path(pointer.read_text().removeprefix("gitdir:").strip())
    return git_dir.parents[2] if git_dir.parent.name == "worktrees" else root
