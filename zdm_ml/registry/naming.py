"""How a model is named to people."""

from __future__ import annotations


def display_name(model_name: str, profile: str) -> str:
    """Return the model's name, marked as a demo unless it was trained with profile `full`."""
    return model_name if profile == "full" else f"{model_name} (demo)"
