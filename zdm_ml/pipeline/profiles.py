"""Profiles: overlays that turn params.yaml into a quicker or a fuller one, comments kept."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from zdm_ml.errors import ConfigError
from zdm_ml.files import write_text
from zdm_ml.params import parse_params

DEFAULT = "full"


def profile_names(root: Path) -> list[str]:
    """Return the names of all profiles: `full` is params.yaml as committed."""
    return [DEFAULT, *sorted(path.stem for path in (root / "profiles").glob("*.yaml"))]


def overlay(text: str, root: Path, profile: str) -> str:
    """Return params text with a profile laid over it; `full` leaves a full one as it is."""
    if profile not in profile_names(root):
        raise ConfigError(
            f"no profile {profile!r}", hint=f"choose one of {', '.join(profile_names(root))}"
        )
    yaml = _yaml()
    values = yaml.load(text)
    if profile == DEFAULT:
        if values.get("profile") == DEFAULT:
            return text
        raise ConfigError(
            f"params.yaml holds profile {values.get('profile')!r}, which overwrote the full values",
            hint="`git checkout params.yaml` brings them back",
        )
    _merge(values, yaml.load((root / "profiles" / f"{profile}.yaml").read_text()), "")
    return _text(values)


def write_profile(root: Path, profile: str) -> None:
    """Lay a profile over the checkout's params.yaml, in place."""
    path = root / "params.yaml"
    write_text(path, overlay(path.read_text(), root, profile))


def run_params(
    text: str,
    root: Path,
    *,
    profile: str,
    models: Sequence[str] = (),
    seed: int | None = None,
    transfer: str | None = None,
    split: Mapping[str, Any] = {},
) -> str:
    """Return params text for one run: profile, chosen models (none: all), seed and strategy.

    `split` sets single keys of that section.
    """
    values = _yaml().load(overlay(text, root, profile))
    known = list(values["models"])
    unknown = [name for name in models if name not in known]
    if unknown:
        raise ConfigError(f"unknown model {unknown[0]!r}", hint=f"choose from {', '.join(known)}")
    if models:
        for name in known:
            if name not in models:
                del values["models"][name]
    if seed is not None:
        values["seed"] = seed
    if transfer is not None:
        for model in values["models"].values():
            model["transfer"] = transfer
    values["split"].update(split)
    parse_params(_yaml("safe").load(_text(values)), "params of the run")
    return _text(values)


def _merge(base: Any, changes: Mapping[str, Any], where: str) -> None:
    for key, value in changes.items():
        if where == "models." and key not in base:
            continue  # a checkout may train fewer models than the profile knows
        optional = where.endswith((".scratch.", ".finetune.")) or ".recipes." in f"{where}{key}."
        if key not in base and not optional:
            raise ConfigError(f"profile sets {where}{key}, which params.yaml does not have")
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            _merge(base[key], value, f"{where}{key}.")
        else:
            base[key] = value


def _yaml(kind: str = "rt") -> YAML:
    yaml = YAML(typ=kind)
    yaml.width = 100
    yaml.preserve_quotes = True
    return yaml


def _text(values: Any) -> str:
    buffer = io.StringIO()
    _yaml().dump(values, buffer)
    return buffer.getvalue()
