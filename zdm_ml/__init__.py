"""ZDM Retrain: casting inspection models, retrained, compared, promoted and served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zdm_ml.loading import load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    """Import `load_model` when it is asked for: torch takes seconds that most commands save."""
    if name != "load_model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from zdm_ml.loading import load_model

    return load_model
