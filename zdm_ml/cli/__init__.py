"""`zdm`: one subcommand per stage and effect."""

from zdm_ml.cli import data, models, registry, serving, stack, stages, workspace
from zdm_ml.cli.app import app, main

__all__ = ["app", "data", "main", "models", "registry", "serving", "stack", "stages", "workspace"]
