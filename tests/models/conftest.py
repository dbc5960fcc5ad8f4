import pytest


@pytest.fixture(autouse=True, scope="module")
def tiny_nets(one_thread: None) -> None:
    """Keep every test of this folder to one core."""
