"""What is known of the champion while nothing can be known."""

from __future__ import annotations

import pytest
from mlflow_server import free_port

from zdm_ml.errors import RegistryError
from zdm_ml.registry.connection import Patience
from zdm_ml.registry.naming import display_name
from zdm_ml.registry.versions import champion


def test_an_unreachable_registry_is_an_error_and_never_no_champion() -> None:
    with pytest.raises(RegistryError, match="MLflow at .* asking for the champion failed"):
        champion(f"http://127.0.0.1:{free_port()}", Patience(timeout_seconds=1, retries=0))


def test_demos_are_marked_wherever_they_are_named() -> None:
    assert display_name("resnet18", "quick") == "resnet18 (demo)"
    assert display_name("resnet18", "smoke") == "resnet18 (demo)"
    assert display_name("resnet18", "full") == "resnet18"
