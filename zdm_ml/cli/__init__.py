"""`zdm`: one subcommand per stage and effect."""

from zdm_ml.cli import (
    audit,
    data,
    experiments,
    explain,
    history,
    intake,
    ledger,
    lockbox,
    models,
    registry,
    rotation,
    serving,
    stack,
    stages,
    workspace,
)
from zdm_ml.cli.app import app, main

__all__ = [
    "app",
    "audit",
    "data",
    "experiments",
    "explain",
    "history",
    "intake",
    "ledger",
    "lockbox",
    "main",
    "models",
    "registry",
    "rotation",
    "serving",
    "stack",
    "stages",
    "workspace",
]
