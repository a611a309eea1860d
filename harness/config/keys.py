"""Check the keys and values of a config against the constructors that its `_target_` keys name."""

import inspect
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from hydra.utils import get_object

from harness.config.wording import MOVED_TARGETS, explain, unknown_key
from harness.errors import ConfigError, TargetError
from harness.types.protocols import parameters


def check_keys(config: Any, where: str) -> None:
    """Check every target in a config: that it can be imported, and has parameters of these names and types.

    Args:
        config: The config, or a value in one.
        where: Its dotted key, for messages.

    Raises:
        TargetError: A target cannot be imported.
        ConfigError: A target was renamed, or its constructor does not accept a key or the type of a value.
    """
    if isinstance(config, Mapping):
        if "_target_" in config:
            _check_target(config, where)
        for key, inner in config.items():
            check_keys(inner, f"{where}.{key}")


def _check_target(config: Mapping[str, Any], where: str) -> None:
    if (new := MOVED_TARGETS.get(config["_target_"])) is not None:
        raise ConfigError(f"{where}._target_={config['_target_']!r} was renamed; write: _target_: {new}")
    try:
        target = get_object(config["_target_"])
    except Exception as error:
        raise TargetError(f"{where}._target_={config['_target_']!r} cannot be imported: {explain(error)}") from None
    known = parameters(target)
    if known is None:
        return
    for key, value in config.items():
        if key.startswith("_"):
            continue
        if key not in known:
            raise ConfigError(unknown_key(where, key, list(known)))
        if expected := _expected_type(value, known[key].annotation):
            raise ConfigError(f"{where}.{key}={value!r} must be {expected}; see: harness --cfg job")


_TYPE_NAMES = {float: "a number", int: "a whole number", str: "a string", bool: "true or false", type(None): "null"}


def _expected_type(value: Any, hint: Any) -> str | None:
    """Return a description of the type that a parameter takes if the value is a scalar of another type, else None."""
    unknown = hint is inspect.Parameter.empty or isinstance(hint, str)
    if unknown or not isinstance(value, str | int | float | bool | None):
        return None
    kinds = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
    if (
        Any in kinds
        or any(kind is Path or get_origin(kind) is Literal for kind in kinds)
        or any(kind in _TYPE_NAMES and _is_instance(value, kind) for kind in kinds)
    ):
        return None
    return " or ".join(_TYPE_NAMES.get(kind, "a group of keys with its own _target_ or a list") for kind in kinds)


def _is_instance(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)
