"""Mappings as read from YAML to frozen dataclasses: whatever does not fit is named."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from zdm_ml.errors import ConfigError


def build(kind: Any, raw: Any, source: str, where: str = "") -> Any:
    """Return a dataclass `kind` of a mapping; `source` and `where` name it in `ConfigError`.

    A key with a default may be missing. The key `raw` takes any value as it is.
    """
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: {where or 'top level'}: expected a mapping, found {raw!r}")
    hints = get_type_hints(kind)
    for key in raw:
        if key not in hints:
            raise ConfigError(
                f"{source}: unknown key {_join(where, key)!r}",
                hint=f"known here: {', '.join(name for name in hints if name != 'raw')}",
            )
    optional = {
        item.name
        for item in fields(kind)
        if item.default is not MISSING or item.default_factory is not MISSING
    }
    for key in hints:
        if key not in raw and key not in optional:
            raise ConfigError(f"{source}: missing key {_join(where, key)!r}", hint="add it")
    return kind(
        **{
            key: _value(hints[key], raw[key], source, _join(where, key))
            for key in hints
            if key in raw
        }
    )


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _value(kind: Any, raw: Any, source: str, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return build(kind, raw, source, where)
    if where == "raw" or kind is Any:
        return raw
    if origin in (Union, types.UnionType):
        if raw is None and type(None) in arguments:
            return None
        return _value(next(a for a in arguments if a is not type(None)), raw, source, where)
    if origin is Literal and raw in arguments:
        return raw
    if origin is dict and isinstance(raw, Mapping):
        return {str(k): _value(arguments[1], v, source, _join(where, k)) for k, v in raw.items()}
    if origin is list and isinstance(raw, list):
        return [_value(arguments[0], item, source, f"{where}[{i}]") for i, item in enumerate(raw)]
    if kind is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    if kind in (int, str, bool) and type(raw) is kind:
        return raw
    expected = " | ".join(map(repr, arguments)) if origin is Literal else _name(kind)
    raise ConfigError(f"{source}: {where}: expected {expected}, found {raw!r}")


def _name(kind: Any) -> str:
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(
        kind, "a list" if get_origin(kind) is list else "a mapping"
    )
