"""From a short name to a net that is ready to use, wherever it lies."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from zdm_ml.errors import ConfigError, PackageError
from zdm_ml.evaluation.map_licence import SALIENCY_FILE, MapLicence, read_licence
from zdm_ml.evaluation.verdicts import Ruling, read_ruling
from zdm_ml.files import read_json
from zdm_ml.models.net import LoadedNet, load_net
from zdm_ml.models.zoo import MODEL_NAMES
from zdm_ml.pipeline.dvcfile import read_pipeline
from zdm_ml.registry.package import Package, load_package
from zdm_ml.settings import Settings, load_settings


@dataclass(frozen=True)
class Inspector:
    """A net with how it decides; `version` is a registry version or a digest's start.

    `map_licence` says whether people may be shown its heat maps.
    """

    net: LoadedNet
    ruling: Ruling
    version: str
    map_licence: MapLicence


def load_model(ref: str | Path = "champion", *, device: str = "cpu") -> LoadedNet:
    """Return a net with its own preprocessing.

    `ref` is `champion` or a version number (from the registry), a model name such as `resnet18`
    (the latest trained one), or a folder: a model package, a trained net, or a run.
    """
    if _in_registry(ref):
        return load_inspector(ref, load_settings(), device=device).net
    folder = _folder(ref, None if Path(ref).is_dir() else load_settings())
    return load_net(folder, device)


def load_inspector(ref: str | Path, settings: Settings, *, device: str = "cpu") -> Inspector:
    """Return what can judge castings; a net without a calibrated threshold raises `PackageError`.

    `ref` is what `load_model` takes.
    """
    if _in_registry(ref):
        return _registered(str(ref), settings, device)
    folder = _folder(ref, settings)
    if (folder / "package.json").is_file():
        package = load_package(folder, device)
        return _packaged(package, package.info.digest[:12])
    net, evaluation = load_net(folder, device), _evaluation(folder, settings)
    licence = read_licence(evaluation / SALIENCY_FILE, net.spec.digest)
    return Inspector(net, _ruling(folder, evaluation), net.spec.digest[:12], licence)


def _in_registry(ref: str | Path) -> bool:
    return str(ref) == "champion" or str(ref).isdecimal()


def _registered(ref: str, settings: Settings, device: str) -> Inspector:
    # Here: a bare GPU node loads folders, and has no MLflow.
    from zdm_ml.registry import versions
    from zdm_ml.registry.connection import Patience, connect, registry_errors

    uri = settings.mlflow_uri
    with registry_errors(uri, f"asking for {ref}"):
        version = versions.resolve(connect(uri, Patience(30, retries=0)), ref).version
    with tempfile.TemporaryDirectory(prefix="zdm-package-") as temporary:
        folder = Path(temporary) / "package"
        package = load_package(versions.download_package(uri, version, folder), device)
        return _packaged(package, version)


def _packaged(package: Package, version: str) -> Inspector:
    return Inspector(package.net, package.ruling, version, package.map_licence)


def _folder(ref: str | Path, settings: Settings | None) -> Path:
    """Return the folder of a net or package that `ref` names."""
    if settings and str(ref) in MODEL_NAMES:
        return _latest_trained(str(ref), settings)
    folder = Path(ref).resolve()
    if (folder / "net.json").is_file() or (folder / "package.json").is_file():
        return folder
    if (folder / "dvc.yaml").is_file():
        return _winner(folder)
    raise ConfigError(
        f"no model {str(ref)!r}",
        hint="name champion, a version number, one of "
        f"{', '.join(MODEL_NAMES)}, or the folder of a package, a trained net or a run",
    )


def _latest_trained(name: str, settings: Settings) -> Path:
    models = read_pipeline(settings.root).paths["models"]
    roots = [settings.root, *(settings.home / "runs").glob("*")]
    trained = [
        root / models / name for root in roots if (root / models / name / "net.json").is_file()
    ]
    if not trained:
        raise PackageError(
            f"{name} is not trained, neither in {settings.root} nor in a run",
            hint=f"run `make run`, or `dvc repro train@{name}`",
        )
    return max(trained, key=lambda folder: (folder / "net.json").stat().st_mtime)


def _winner(run: Path) -> Path:
    paths = read_pipeline(run).paths
    try:
        name = read_json(run / paths["selection"])["winner"]
    except (OSError, ValueError, KeyError) as error:
        raise _unfinished(run) from error
    if not name:
        raise _unfinished(run)
    return run / paths["models"] / str(name)


def _unfinished(run: Path) -> PackageError:
    return PackageError(f"run {run} has no winner", hint="let its stage `select` finish first")


def _ruling(folder: Path, evaluation: Path) -> Ruling:
    decision = evaluation / "decision.json"
    try:
        return read_ruling(read_json(decision))
    except (OSError, ValueError, AttributeError) as error:
        raise PackageError(
            f"{folder} has no threshold: {decision} cannot be used",
            hint=f"run `dvc repro evaluate@{folder.name}`, or name a model package",
        ) from error


def _evaluation(folder: Path, settings: Settings) -> Path:
    """Return the folder of what was measured of the net in `folder`."""
    if (folder / "decision.json").is_file():  # it was trained alone
        return folder
    paths = read_pipeline(settings.root).paths
    depth = len(Path(paths["models"]).parts)
    run = folder.parents[min(depth, len(folder.parents) - 1)]
    return run / paths["evaluation"] / folder.name
