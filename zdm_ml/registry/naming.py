"""How a model is named to people, and what tags say of the honesty of its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def display_name(model_name: str, profile: str) -> str:
    """Return the model's name, marked as a demo unless it was trained with profile `full`."""
    return model_name if profile == "full" else f"{model_name} (demo)"


def leak_tags(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags `leaky` (true, false or unknown) and `split_protocol` of figures."""
    leaky = metrics.get("leaky")
    return {
        "leaky": str(leaky).lower() if isinstance(leaky, bool) else "unknown",
        "split_protocol": str(metrics.get("protocol", "unknown")),
    }
