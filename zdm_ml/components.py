"""What a stack on one machine consists of: programs, their settings, secrets and environment."""

from __future__ import annotations

import base64
import configparser
import io
import json
import re
import secrets
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from zdm_ml.files import write_text
from zdm_ml.settings import HOST, Settings
from zdm_ml.supervisor import STACK_MARK

USER = "admin"

_INHERITED = re.compile(
    r"^(PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|VIRTUAL_ENV|SSL_CERT_\w+"
    r"|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|XDG_\w+|TORCH_HOME|HF_\w+|KAGGLE\w*|CUDA_\w+|NVIDIA_\w+"
    r"|\w+_NUM_THREADS|GIT_\w+|SSH_AUTH_SOCK|AWS_\w+|ZDM_\w+|(?i:https?_proxy|no_proxy|all_proxy))$"
)


def _roles(settings: Settings) -> dict[str, str]:
    """Return the role of every user of Airflow; `admin` keeps its own."""
    return {**settings.airflow_users, USER: "admin"}


def password_file(settings: Settings) -> Path:
    """Return the file with the login of Airflow's UI."""
    return settings.home / "airflow" / "passwords.json"


def password(settings: Settings, user: str = USER) -> str:
    """Return the password of a user of Airflow, made on first use and kept."""
    path = password_file(settings)
    known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    if user not in known:
        known[user] = secrets.token_urlsafe(12)
        _write_private(path, json.dumps(known))
    return known[user]


def child_environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of the stack's processes, and so of every task."""
    inherited = {key: value for key, value in environ.items() if _INHERITED.match(key)}
    for key in ("ZDM_RUN_ID", "ZDM_COMPONENT"):
        inherited.pop(key, None)
    scripts = str(Path(sys.executable).parent)
    return {
        **inherited,
        "PATH": f"{scripts}:{environ.get('PATH', '/usr/local/bin:/usr/bin:/bin')}",
        STACK_MARK: str(settings.home),
        "ZDM_ROOT": str(settings.root),
        "ZDM_HOME": str(settings.home),
        "ZDM_AIRFLOW_PORT": str(settings.airflow_port),
        "ZDM_MLFLOW_PORT": str(settings.mlflow_port),
        "ZDM_INFERENCE_PORT": str(settings.inference_port),
        "ZDM_SCHEDULE": settings.schedule,
        "ZDM_INBOX": settings.inbox,
        "ZDM_INTAKE_SCHEDULE": settings.intake_schedule,
        "ZDM_GPU_SLOTS": str(settings.gpu_slots),
        "AIRFLOW_HOME": str(settings.home / "airflow"),
        "MLFLOW_TRACKING_URI": settings.mlflow_uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "true",
        "SCARF_ANALYTICS": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        # The standard input of a task is a socket. The first bash on one takes it for a remote
        # login and would run ~/.bashrc, whatever that does and however long it takes.
        "SHLVL": "1",
        # Process titles would otherwise overwrite the environment that STACK_MARK is read from.
        "SPT_NOENV": "1",
    }


def describe_stack(settings: Settings) -> dict[str, Any]:
    """Return what the supervisor runs: set-up commands, and components with their commands."""
    database = f"sqlite:///{settings.home / 'mlflow' / 'mlflow.db'}"
    mlflow = [
        *("mlflow", "server", "--host", HOST, "--port", str(settings.mlflow_port)),
        *("--workers", "1", "--backend-store-uri", database, "--serve-artifacts"),
        *("--artifacts-destination", str(settings.home / "mlflow" / "artifacts")),
    ]
    commands = {
        "api-server": ["airflow", "api-server"],
        "scheduler": ["airflow", "scheduler", "--skip-serve-logs"],
        "dag-processor": ["airflow", "dag-processor"],
        "triggerer": ["airflow", "triggerer", "--skip-serve-logs"],
        "mlflow": mlflow,
        "inference": ["zdm", "serve"],
    }
    setup = {
        "airflow": ["airflow", "db", "migrate"],
        "mlflow": ["mlflow", "db", "upgrade", database],
    }
    if settings.mlflow_uri != f"http://{HOST}:{settings.mlflow_port}":
        del commands["mlflow"], setup["mlflow"]
    pending = [setup[name] for name in setup if not _stamp(settings, name).is_file()]
    return {
        "root": str(settings.root),
        "ports": {
            "airflow": settings.airflow_port,
            "mlflow": settings.mlflow_port,
            "inference": settings.inference_port,
        },
        "components": [{"name": name, "command": command} for name, command in commands.items()],
        "setup": pending,
    }


def mark_set_up(settings: Settings) -> None:
    """Remember that both databases fit the installed versions, for a quicker next start."""
    for name in ("airflow", "mlflow"):
        _stamp(settings, name).touch()


def _stamp(settings: Settings, name: str) -> Path:
    package = {"airflow": "apache-airflow-core", "mlflow": "mlflow"}[name]
    return settings.home / name / f".database-{version(package)}"


def write_airflow_config(settings: Settings) -> None:
    """Write `airflow.cfg`; its secrets are made once, or a restart would disown running tasks."""
    for user in _roles(settings):
        password(settings, user)  # Airflow would make one and write it into its log
    (settings.home / "mlflow").mkdir(parents=True, exist_ok=True)
    parser = configparser.RawConfigParser()
    parser.read_dict(_airflow_options(settings, _keys(settings)))
    text = io.StringIO()
    parser.write(text)
    _write_private(settings.home / "airflow" / "airflow.cfg", text.getvalue())


def _keys(settings: Settings) -> dict[str, str]:
    path = settings.home / "airflow" / "secrets.json"
    if not path.is_file():
        keys = {name: secrets.token_hex(32) for name in ("jwt", "api")}
        keys["fernet"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        _write_private(path, json.dumps(keys))
    found: dict[str, str] = json.loads(path.read_text())
    return found


def _airflow_options(settings: Settings, keys: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    home, url = settings.home / "airflow", settings.airflow_url
    return {
        "core": {
            "dags_folder": settings.root / "dags",
            "executor": "LocalExecutor",
            "parallelism": 8,
            "load_examples": False,
            "fernet_key": keys["fernet"],
            "simple_auth_manager_users": ",".join(
                f"{user}:{role}" for user, role in _roles(settings).items()
            ),
            "simple_auth_manager_passwords_file": password_file(settings),
            "execution_api_server_url": f"{url}/execution/",
            "min_serialized_dag_update_interval": 5,
        },
        # SQLite's writers wait for each other: on a busy machine longer than the usual 5 seconds.
        "database": {"sql_alchemy_conn": f"sqlite:///{home / 'airflow.db'}?timeout=30"},
        "logging": {
            "base_log_folder": home / "logs",
            "colored_console_log": False,
            # There is no log server (it would listen on every interface): the API server reads
            # the files themselves and would log a traceback at each look at a running task.
            "namespace_levels": "airflow.utils.log.file_task_handler=CRITICAL",
        },
        "api": {
            "host": HOST,
            "port": settings.airflow_port,
            "base_url": url,
            "workers": 1,
            "secret_key": keys["api"],
            "instance_name": "ZDM Retrain",
        },
        "api_auth": {"jwt_secret": keys["jwt"]},
        "execution_api": {"jwt_expiration_time": 3600},
        # One request is tried for about two and a half minutes before it counts as failed, so
        # that an API server that is away for two minutes costs no training.
        "workers": {
            "execution_api_retries": 40,
            "execution_api_retry_wait_max": 8,
            "max_failed_heartbeats": 10,
        },
        "scheduler": {
            "scheduler_idle_sleep_time": 0.5,
            "scheduler_health_check_threshold": 20,
            "orphaned_tasks_check_interval": 20,
            "task_instance_heartbeat_timeout": 300,
        },
        "dag_processor": {"refresh_interval": 30, "parsing_processes": 1},
    }


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    write_text(path, text)
    path.chmod(0o600)
