"""A package as an MLflow model: one exported module that any MLflow client can load and serve."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from zdm_ml.errors import RegistryError
from zdm_ml.registry.package import Package

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

PACKAGE_FOLDER = "package"
# Height and width differ, so that the export cannot take them for one size.
EXAMPLE_HEIGHT, EXAMPLE_WIDTH = 64, 80
EXPORT_TOLERANCE = 1e-3


def save_mlflow_model(folder: Path, package: Package, entry: LoggedModel) -> None:
    """Write the MLflow model of `package` into `folder`, with the package itself inside.

    The exported module takes grey uint8 [N, H, W] and returns P(defect) as float32 [N]. It is
    loaded back and must agree with the package on the golden images, or `RegistryError`.
    """
    with warnings.catch_warnings():
        # MLflow's own modules trip over MLflow's advice on type hints while they are imported.
        warnings.simplefilter("ignore", UserWarning)
        import mlflow.pyfunc  # MLflow would import it lazily, outside this block
        import mlflow.pytorch
    from mlflow.models import Model

    from zdm_ml.models.scoring import ScoringModule

    cpu_net = package.net.net.cpu().eval()
    mlflow.pytorch.save_model(
        ScoringModule(cpu_net, package.net.spec).eval(),
        str(folder),
        mlflow_model=Model(
            artifact_path=entry.artifact_location,
            model_uuid=entry.model_id,
            run_id=entry.source_run_id,
            model_id=entry.model_id,
        ),
        signature=signature(),
        input_example=input_example(package),
        serialization_format="pt2",
        pip_requirements=requirements(),
    )
    shutil.copytree(package.folder, folder / PACKAGE_FOLDER)
    _check_export(folder, package)


def signature() -> Any:
    """Return the MLflow signature: any number of grey images of any one size, a score for each."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    # Without names: MLflow then passes the array itself, not a mapping with one key.
    images = TensorSpec(np.dtype(np.uint8), (-1, -1, -1))
    scores = TensorSpec(np.dtype(np.float32), (-1,))
    return ModelSignature(inputs=Schema([images]), outputs=Schema([scores]))


def input_example(package: Package) -> np.ndarray:
    """Return two small grey images, uint8 [2, H, W]; a batch of one would fix the batch size."""
    golden = package.golden_images()
    pair = [golden[0], golden[-1]]
    size = (EXAMPLE_WIDTH, EXAMPLE_HEIGHT)
    return np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in pair])


def requirements() -> list[str]:
    """Return what a client must have installed: the exported module needs no zdm_ml."""
    import mlflow
    import torch

    versions = {"mlflow": mlflow.__version__, "torch": torch.__version__, "numpy": np.__version__}
    return [f"{name}=={version.split('+')[0]}" for name, version in versions.items()]


def _check_export(folder: Path, package: Package) -> None:
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(folder))
    for image in package.golden_images():
        ours = float(package.net.scores([image])[0])
        exported = float(model.predict(image[None])[0])
        if not abs(ours - exported) <= EXPORT_TOLERANCE:  # also when it is NaN
            raise RegistryError(
                f"the exported {package.info.model_name} scores {exported:.6f} where the net "
                f"scores {ours:.6f}",
                hint="the version is not registered; report the model and the torch version",
            )
