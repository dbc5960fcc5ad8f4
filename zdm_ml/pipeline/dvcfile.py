"""dvc.yaml as plain stages, for those who render or run it.

The reader knows the subset that this project uses and refuses the rest: `vars` as inline mappings,
stages with `cmd deps params outs metrics plots meta`, `foreach: ${section}` over a mapping of
params.yaml with `do:`, and the expressions `${key}`, `${item.*}` and names from `vars`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from zdm_ml.errors import PipelineError

_KNOWN_KEYS = {"cmd", "deps", "params", "outs", "metrics", "plots", "meta"}
_EXPRESSION = re.compile(r"\$\{([^}]*)\}")


@dataclass(frozen=True)
class Stage:
    """One stage as DVC would run it; `upstream` names the stages whose outs it reads."""

    name: str
    group: str
    item: str | None
    command: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    meta: Mapping[str, Any]
    upstream: tuple[str, ...] = ()

    @property
    def airflow(self) -> Mapping[str, Any]:
        """What the stage asks of Airflow: pool, slots, time-out, retries, trigger rule."""
        settings: Mapping[str, Any] = self.meta.get("airflow", {})
        return settings


@dataclass(frozen=True)
class Pipeline:
    """All stages in an order in which they can run, and the paths that dvc.yaml names."""

    stages: tuple[Stage, ...]
    paths: Mapping[str, str]

    def stage(self, name: str) -> Stage:
        """Return the stage of that name; an unknown one raises `PipelineError`."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise PipelineError(f"dvc.yaml has no stage {name!r}", hint="`dvc stage list` shows them")

    @property
    def items(self) -> tuple[str, ...]:
        """The keys that the pipeline iterates over (model names), in params.yaml's order."""
        return tuple(dict.fromkeys(stage.item for stage in self.stages if stage.item))


def read_pipeline(root: Path) -> Pipeline:
    """Read `dvc.yaml` and `params.yaml` below `root`."""
    spec, params = _load(root / "dvc.yaml"), _load(root / "params.yaml")
    variables = _variables(spec)
    stages = [
        stage
        for name, body in spec.get("stages", {}).items()
        for stage in _expand(str(name), body, params, variables)
    ]
    paths = {key: str(value) for key, value in variables.get("path", {}).items()}
    return Pipeline(tuple(_in_order(_connect(stages))), paths)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    except FileNotFoundError as error:
        raise PipelineError(f"{path} is missing", hint="run from the project's root") from error
    except yaml.YAMLError as error:
        raise PipelineError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise PipelineError(f"{path}: expected a mapping")
    return content


def _variables(spec: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(spec) - {"vars", "stages"}
    if unknown:
        raise PipelineError(f"dvc.yaml: section {min(unknown)!r} is outside the subset read here")
    merged: dict[str, Any] = {}
    for entry in spec.get("vars", []):
        if not isinstance(entry, dict):
            raise PipelineError(f"dvc.yaml: vars entry {entry!r}: only inline mappings are read")
        merged.update(entry)
    return merged


def _expand(
    name: str, body: Mapping[str, Any], params: Mapping[str, Any], variables: Mapping[str, Any]
) -> Iterator[Stage]:
    if "foreach" not in body:
        yield _stage(name, None, body, variables)
        return
    if set(body) != {"foreach", "do"}:
        raise PipelineError(f"dvc.yaml: stage {name!r}: only foreach with do is read")
    section = re.fullmatch(r"\$\{(\w+)\}", str(body["foreach"]))
    items = params.get(section[1]) if section else None
    if not isinstance(items, dict) or not items:
        raise PipelineError(
            f"dvc.yaml: stage {name!r}: foreach {body['foreach']!r} is no section of params.yaml",
            hint="use `foreach: ${models}`",
        )
    for key, item in items.items():
        yield _stage(name, str(key), body["do"], {**variables, "key": key, "item": item})


def _stage(
    group: str, item: str | None, body: Mapping[str, Any], scope: Mapping[str, Any]
) -> Stage:
    name = f"{group}@{item}" if item else group
    unknown = set(body) - _KNOWN_KEYS
    if unknown:
        raise PipelineError(
            f"dvc.yaml: stage {name!r}: {min(unknown)!r} is outside the subset read"
        )
    if not isinstance(body.get("cmd"), str):
        raise PipelineError(f"dvc.yaml: stage {name!r}: cmd must be one line of text")
    outs = [
        _resolve(path, scope, name)
        for kind in ("outs", "metrics", "plots")
        for path in _paths(body.get(kind, []))
    ]
    return Stage(
        name=name,
        group=group,
        item=item,
        command=_resolve(body["cmd"], scope, name),
        deps=tuple(_resolve(path, scope, name) for path in _paths(body.get("deps", []))),
        outs=tuple(outs),
        meta=body.get("meta", {}),
    )


def _paths(entries: list[Any]) -> Iterator[str]:
    """Yield paths: an entry is one, or a mapping from one to its options."""
    for entry in entries:
        yield str(next(iter(entry))) if isinstance(entry, dict) else str(entry)


def _resolve(text: str, scope: Mapping[str, Any], stage: str) -> str:
    def look_up(match: re.Match[str]) -> str:
        value: Any = scope
        for part in match[1].split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise PipelineError(f"dvc.yaml: stage {stage!r}: cannot resolve {match[0]}")
            value = value[part]
        if isinstance(value, dict | list):
            raise PipelineError(f"dvc.yaml: stage {stage!r}: {match[0]} is not a single value")
        return str(value)

    return _EXPRESSION.sub(look_up, text)


def _connect(stages: list[Stage]) -> Iterator[Stage]:
    """Yield the stages with `upstream` filled in: a dep reads an out that is it, or in it."""
    # Airflow does this again and again, for some hundred deps beside some dozen outs.
    deps = {stage.name: [PurePosixPath(dep).parts for dep in stage.deps] for stage in stages}
    outs = {stage.name: [PurePosixPath(out).parts for out in stage.outs] for stage in stages}
    for stage in stages:
        upstream = tuple(
            other.name
            for other in stages
            if other is not stage
            and any(_overlap(dep, out) for dep in deps[stage.name] for out in outs[other.name])
        )
        yield Stage(**{**vars(stage), "upstream": upstream})


def _overlap(dep: tuple[str, ...], out: tuple[str, ...]) -> bool:
    """Tell whether one of two paths, as their parts, is the other or in it."""
    return all(first == second for first, second in zip(dep, out, strict=False))


def _in_order(stages: Iterator[Stage]) -> Iterator[Stage]:
    by_name = {stage.name: stage for stage in stages}
    try:
        order = TopologicalSorter({name: by_name[name].upstream for name in by_name}).static_order()
        yield from (by_name[name] for name in order)
    except CycleError as error:
        raise PipelineError(f"dvc.yaml: stages depend on each other: {error.args[1]}") from error
