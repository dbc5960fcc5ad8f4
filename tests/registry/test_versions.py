"""What is known of the champion while nothing can be known."""

from __future__ import annotations

import pytest
from ports import free_port

from zdm_ml.errors import RegistryError
from zdm_ml.registry.connection import Patience
from zdm_ml.registry.naming import display_name
from zdm_ml.registry.versions import VersionInfo, champion, is_older


def test_an_unreachable_registry_is_an_error_and_never_no_champion() -> None:
    with pytest.raises(RegistryError, match="MLflow at .* asking for the champion failed"):
        champion(f"http://127.0.0.1:{free_port()}", Patience(timeout_seconds=1, retries=0))


def test_demos_are_marked_wherever_they_are_named() -> None:
    assert display_name("resnet18", "quick") == "resnet18 (demo)"
    assert display_name("resnet18", "smoke") == "resnet18 (demo)"
    assert display_name("resnet18", "full") == "resnet18"


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [
        (("1", ""), ("2", ""), True),
        (("2", ""), ("1", ""), False),
        (("3", "2026-01-01T10:00:00+00:00"), ("2", "2026-01-02T10:00:00+00:00"), True),
        (("2", "2026-01-02T10:00:00+00:00"), ("3", "2026-01-01T10:00:00+00:00"), False),
        (("1", "2026-01-01T10:00:00+00:00"), ("2", "2026-01-01T10:00:00+00:00"), True),
        (("3", "2026-01-01T10:00:00+00:00"), ("2", ""), False),
    ],
)
def test_the_start_of_the_retraining_tells_which_version_is_older_then_the_number(
    version: tuple[str, str], than: tuple[str, str], older: bool
) -> None:
    assert is_older(_version(*version), _version(*than)) is older


def _version(number: str, started: str) -> VersionInfo:
    return VersionInfo(
        version=number,
        model_name="luna",
        run_id="r",
        mlflow_run_id="",
        profile="full",
        package_digest="",
        data_md5="",
        git_commit="",
        started=started,
    )
