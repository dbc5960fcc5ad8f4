"""The examples, executed as a reader would; the champion's one runs in the e2e test's stack."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = [
    pytest.mark.integration,
    # jupyter_client still calls what zmq is about to drop.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.mark.parametrize("name", ["train_a_model", "load_the_champion"])
def test_an_example_is_stored_without_outputs(project: Path, name: str) -> None:
    notebook = nbformat.read(project / "examples" / f"{name}.ipynb", as_version=4)

    assert all(not cell.get("outputs") for cell in notebook.cells)
    assert all(cell.get("execution_count") is None for cell in notebook.cells)


def test_training_a_model_by_hand_works(project: Path) -> None:
    notebook = nbformat.read(project / "examples" / "train_a_model.ipynb", as_version=4)

    client = NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(project)}})
    client.execute()

    assert "'accuracy'" in notebook.cells[-2].outputs[-1].data["text/plain"]
