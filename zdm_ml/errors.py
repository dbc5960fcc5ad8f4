"""What can go wrong, as one tree.

ZdmError
|-- ConfigError        params.yaml, settings or a command line option
|-- DataError          images, archives, manifests, data versions
|   `-- ArchiveError   an archive that must not be unpacked
|-- WeightsError       pretrained weights: missing, wrong hash, no network
|-- TrainingError      a training that cannot go on (NaN loss, no images)
|-- PackageError       a model package that is incomplete or altered
|-- PipelineError      dvc.yaml, git, dvc, run workspaces
|-- RegistryError      MLflow: unreachable, no such version or alias
`-- StackError         a component that does not start, stop or answer
"""

from __future__ import annotations


class ZdmError(Exception):
    """A failure whose message names what failed, where, and the next step."""

    def __init__(self, problem: str, *, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}\n  next: {self.hint}" if self.hint else self.problem


class ConfigError(ZdmError):
    """A parameter, setting or option is unknown, missing or of the wrong type."""


class DataError(ZdmError):
    """Images, a manifest or a data version cannot be used."""


class ArchiveError(DataError):
    """An archive holds a member that must not be unpacked."""


class WeightsError(ZdmError):
    """Pretrained weights are missing, altered or out of reach."""


class TrainingError(ZdmError):
    """A training cannot go on."""


class PackageError(ZdmError):
    """A model package is incomplete or does not match its digests."""


class PipelineError(ZdmError):
    """The pipeline file, git or dvc refused."""


class RegistryError(ZdmError):
    """The model registry is out of reach or lacks what was asked for."""


class StackError(ZdmError):
    """A component of the stack does not start, stop or answer."""
