"""DESIGN's layer rules, checked on the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zdm_ml.pipeline.dvcfile import read_pipeline

LEAN = {"torch", "torchvision", "numpy", "PIL", "cv2", "scipy", "sklearn", "safetensors", "zdm_ml"}
GPU_NODE_MODULES = (
    "zdm_ml.models.net",
    "zdm_ml.models.weights",
    "zdm_ml.models.transfer",
    "zdm_ml.training.loop",
    "zdm_ml.evaluation.scoring",
    "zdm_ml.evaluation.metrics",
    "zdm_ml.evaluation.thresholds",
    "zdm_ml.params",
)

BYSTANDERS = (
    "zdm_ml.data.layout",
    "zdm_ml.data.listing",
    "zdm_ml.errors",
    "zdm_ml.files",
    "zdm_ml.params",
    "zdm_ml.pipeline.dvcfile",
    "zdm_ml.pipeline.locks",
    "zdm_ml.pipeline.reporter",
    "zdm_ml.pipeline.retraining",
    "zdm_ml.pipeline.stages",
    "zdm_ml.registry",
    "zdm_ml.schema",
    "zdm_ml.settings",
)
"""What stages import to find, check, write and report: it decides nothing of what they compute."""

IN_THE_MODELS = (
    "zdm_ml.data.",
    "zdm_ml.evaluation.curves",
    "zdm_ml.models",
    "zdm_ml.pipeline.fitting",
    "zdm_ml.recipes",
    "zdm_ml.training",
)
"""What decides the trained models, too, on which `confirm` depends."""

NOT_USED = {
    "train": (
        "zdm_ml.evaluation.flops",
        "zdm_ml.evaluation.metrics",
        "zdm_ml.evaluation.thresholds",
    ),
    "evaluate": ("zdm_ml.data.issues", "zdm_ml.data.splits", "zdm_ml.recipes"),
    "confirm": (
        *IN_THE_MODELS,
        "zdm_ml.evaluation.bootstrap",
        "zdm_ml.evaluation.chart",
        "zdm_ml.evaluation.comparison",
        "zdm_ml.evaluation.latency",
        "zdm_ml.evaluation.map_licence",
        "zdm_ml.evaluation.metrics",
        "zdm_ml.evaluation.report",
        "zdm_ml.evaluation.robustness",
        "zdm_ml.evaluation.sampling",
        "zdm_ml.evaluation.selection",
        "zdm_ml.pipeline.map_measuring",
    ),
    "select": (
        "zdm_ml.data.",
        "zdm_ml.evaluation.latency",
        "zdm_ml.evaluation.metrics",
        "zdm_ml.models",
        "zdm_ml.training",
    ),
}
"""What comes along with a module of which the stage calls a function that needs none of it."""

MODULES = {
    "train": "zdm_ml.pipeline.train_stage",
    "evaluate": "zdm_ml.pipeline.evaluate_stage",
    "confirm": "zdm_ml.pipeline.confirm_stage",
    "select": "zdm_ml.pipeline.compare_stages",
}

READ_ONLY = {"train": "", "evaluate": "zdm_ml.pipeline.fitting"}
"""A dependency that gives the stage a reader of files, not what it imports for its own work."""


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _importers(root: Path, package: str) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for path in sorted(root.rglob("*.py"))
        if any(name.split(".")[0] == package for name in _imports(path))
    }


def test_nothing_in_the_package_imports_airflow(project: Path) -> None:
    assert _importers(project / "zdm_ml", "airflow") == set()


@pytest.mark.parametrize(
    ("package", "door"), [("mlflow", "registry/"), ("sqlalchemy", "serving/store.py")]
)
def test_each_system_has_one_door(project: Path, package: str, door: str) -> None:
    importers = _importers(project / "zdm_ml", package)

    assert importers
    assert all(path.startswith(door) for path in importers)


@pytest.mark.parametrize("package", ["torch", "torchvision", "mlflow", "dvc", "PIL"])
def test_dags_import_no_machine_learning(project: Path, package: str) -> None:
    assert _importers(project / "dags", package) == set()


def test_git_and_dvc_are_started_from_one_module(project: Path) -> None:
    callers = {
        path.name
        for path in (project / "zdm_ml").rglob("*.py")
        if '["git"' in path.read_text() or '"-m", "dvc"' in path.read_text()
    }

    assert callers == {"commands.py"}


def _reads_environment(path: Path) -> bool:
    """Tell whether a module reads `os.environ`; setting a variable for a library is no reading."""
    tree = ast.parse(path.read_text())
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "environ"]
    set_only = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
    ]
    return any(node not in set_only for node in found) or "getenv" in path.read_text()


def test_the_environment_is_read_in_the_cli_and_the_settings_alone(project: Path) -> None:
    package = project / "zdm_ml"
    readers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if _reads_environment(path)
    }

    # psutil's `environ()` of another process is how a stack finds its own.
    assert {path for path in readers if not path.startswith("cli/")} <= {
        "settings.py",
        "supervisor.py",
    }


def test_a_gpu_node_needs_no_more_than_the_lean_packages() -> None:
    """Every other third-party package is blocked while the modules are imported."""
    code = f"""
import importlib, importlib.abc, sys
allowed = {LEAN!r}
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"yaml", "ruamel", "typer", "rich", "mlflow", "dvc", "airflow",
                                  "sqlalchemy", "fastapi", "matplotlib", "filelock", "requests"}}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
for module in {GPU_NODE_MODULES!r}:
    importlib.import_module(module)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = (
        "import sys, zdm_ml.cli\n"
        "heavy = {'torch', 'torchvision', 'mlflow', 'airflow', 'dvc', 'sklearn', 'matplotlib'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, f"imported at start: {done.stderr}"


def test_every_code_dependency_of_a_stage_exists(project: Path) -> None:
    deps = {dep for stage in read_pipeline(project).stages for dep in stage.deps}

    missing = [dep for dep in deps if dep.startswith("zdm_ml") and not (project / dep).exists()]

    assert missing == []


@pytest.mark.parametrize("stage", MODULES)
def test_all_code_that_decides_what_a_stage_writes_is_among_its_deps(
    project: Path, stage: str
) -> None:
    passed = BYSTANDERS + NOT_USED[stage]
    reached: set[str] = set()
    waiting = [MODULES[stage]]
    while waiting:
        module = waiting.pop()
        path = project / f"{module.replace('.', '/')}.py"
        if module in reached or module.startswith(passed) or not path.is_file():
            continue
        reached.add(module)
        if module != READ_ONLY.get(stage):
            waiting += _imports(path)

    names = {found.name for found in read_pipeline(project).stages}
    deps = read_pipeline(project).stage(stage if stage in names else f"{stage}@luna").deps
    files = {f"{module.replace('.', '/')}.py" for module in reached}
    uncovered = {file for file in files if not any(Path(file).is_relative_to(dep) for dep in deps)}

    assert uncovered == set()
