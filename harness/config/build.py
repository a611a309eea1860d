"""Compose configs and construct objects from them, with errors that a user can act on."""

import contextlib
import inspect
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from harness.config.conf import CONF
from harness.config.resolvers import RESOLVERS
from harness.config.wording import MOVED_TARGETS, RENAMED_KEYS, explain, invalid_override, unknown_key
from harness.errors import ConfigError, HarnessError, TargetError
from harness.evaluation import values
from harness.types.protocols import parameters

for _name, _resolve in RESOLVERS.items():
    OmegaConf.register_new_resolver(_name, _resolve, replace=True)
Config = TypeVar("Config", bound=BaseModel)
_NO_RETRIEVER = "You must specify 'retriever'"  # Hydra's message
_SENSITIVE_KEYS = r"(?:api[_-]?key|key|token|secret|password|authorization|credentials?)"
_SECRET = re.compile(rf"(?:^|[._-]){_SENSITIVE_KEYS}$", re.IGNORECASE)
_SECRET_INSIDE = re.compile(rf"(?:^|[\W_]){_SENSITIVE_KEYS}['\"]?\s*:", re.IGNORECASE)


def require_complete(config: Mapping[str, Any], where: str = "") -> Mapping[str, Any]:
    """Return the config, whose key is `where`. Raises `ConfigError` if a value in it is missing."""
    for key, value in leaves(config, where):
        if value == "???":
            raise ConfigError(f"{key} is not set; add: {key}=VALUE")
    return config


def composed(overrides: Sequence[str], folders: Sequence[str] = (), name: str = "run") -> dict[str, Any]:
    """Return the resolved config for overrides, independent of any running Hydra job; a missing value is ???.

    Args:
        overrides: Hydra overrides.
        folders: Additional config folders.
        name: The config in conf/, without its suffix.
    """
    return _container(compose_config(overrides, folders, name=name))


def choices(overrides: Sequence[str], folders: Sequence[str] = ()) -> dict[str, str]:
    """Return the option chosen in each group, including groups inside a retriever, for overrides."""
    return compose_with_choices(overrides, folders)[1]


def compose_with_choices(overrides: Sequence[str], folders: Sequence[str] = ()) -> tuple[DictConfig, dict[str, str]]:
    """Return `compose_config` and `choices` from a single composition."""
    full = compose_config(overrides, folders, hydra_too=True)
    config = OmegaConf.masked_copy(full, [str(key) for key in full if key != "hydra"])
    return config, dict(full.hydra.runtime.choices)


def compose_config(
    overrides: Sequence[str], folders: Sequence[str] = (), hydra_too: bool = False, name: str = "run"
) -> DictConfig:
    """Compose conf/<name>.yaml, without resolving it, independent of any running Hydra job.

    Args:
        overrides: Hydra overrides.
        folders: Additional config folders.
        hydra_too: Keep Hydra's own config under the key `hydra`.
        name: The config in conf/, without its suffix.

    Raises:
        ConfigError: Hydra rejects the overrides.
    """
    state = Singleton.get_state()
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            paths = ",".join(f"'file://{folder}'".replace("\\", "\\\\") for folder in folders)
            search = [f"hydra.searchpath=[{paths}]"] if folders else []
            return compose(name, [*overrides, *search], return_hydra_config=hydra_too)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain_error(error, overrides, name)) from None
    finally:
        Singleton.set_state(state)


def resolve(config: Any, where: str = "") -> dict[str, Any]:
    """Return a config as resolved dicts and lists. Raises `ConfigError` for a missing or unresolvable value.

    Args:
        config: The config.
        where: Its key, for messages.
    """
    try:
        resolved = _container(config)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from None
    require_complete(resolved, where)
    return resolved


def validate_config(kind: type[Config], config: Any, command: str) -> Config:
    """Return a command's config as `kind`. Raises `ConfigError` naming key, value and choices.

    Args:
        kind: The pydantic model of the command's config.
        config: The composed config.
        command: The command, for messages.
    """
    resolved = {key: value for key, value in resolve(config).items() if key != "experiment"}
    try:
        return kind.model_validate(resolved)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = first["msg"]
        if first["type"] == "extra_forbidden":
            siblings = _sibling_keys(kind, first["loc"])
            new = RENAMED_KEYS.get(str(first["loc"][-1]))
            message = f"no such key; choices: {', '.join(siblings)}"
            if new in siblings:
                message = f"the key has another name now, write: {new}"
        raise ConfigError(f"{key}={first['input']!r}: {message}; see the whole config: {command} --cfg job") from None


def _sibling_keys(kind: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the valid keys on the level of an unknown one."""
    for name in location[:-1]:
        kind = cast("type[BaseModel]", kind.model_fields[str(name)].annotation)
    return list(kind.model_fields)


def public_config(config: DictConfig) -> dict[str, Any]:
    """Return a config that may be stored: resolved except for environment variables, and without secrets."""
    return dict(_without_secrets(OmegaConf.to_container(config), OmegaConf.to_container(config, resolve=True)))


def mask_secrets(config: DictConfig) -> dict[str, Any]:
    """Return an unresolved config without secrets."""
    raw = OmegaConf.to_container(config)
    return dict(_without_secrets(raw, raw))


def _without_secrets(raw: Any, resolved: Any, key: str = "") -> Any:
    if isinstance(resolved, Mapping):
        raw_values = raw if isinstance(raw, Mapping) else resolved
        return {str(name): _without_secrets(raw_values.get(name), inner, str(name)) for name, inner in resolved.items()}
    if isinstance(resolved, list):
        return [
            _without_secrets(raw_item, inner)
            for raw_item, inner in zip(raw if isinstance(raw, list) else resolved, resolved, strict=True)
        ]
    if isinstance(raw, str) and "${oc.env:" in raw:
        return raw
    return "***" if resolved and _SECRET.search(key) else resolved


def quote(value: Any) -> str:
    """Return a value in the syntax of a command-line override."""
    if isinstance(value, str):
        escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
        return f"'{escaped}'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(quote, value))}]"
    return str(value)


def mask_override(override: str) -> str:
    """Return an override with any secret value masked."""
    key, equals, value = override.partition("=")
    return f"{key}=***" if equals and (_SECRET.search(key) or _SECRET_INSIDE.search(value)) else override


def _container(config: Any) -> dict[str, Any]:
    return {str(key): value for key, value in cast("Any", OmegaConf.to_container(config, resolve=True)).items()}


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Return the values of a nested config with their dotted keys, each behind `prefix`."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def construct(config: Mapping[str, Any], where: str) -> Any:
    """Construct the object that a config describes. Raises `ConfigError`.

    Args:
        config: The config, with the class or function under `_target_`.
        where: Its key, for messages.
    """
    check_keys(config, where)
    try:
        return _construct(config)
    except InstantiationException as error:
        if isinstance(error.__cause__, HarnessError):
            raise error.__cause__ from None
        raise TargetError(f"{where}: {explain(error)}") from error


def _construct(config: Any) -> Any:
    """Construct the targets in a config, inner ones first, and remember the arguments of each."""
    if isinstance(config, list):
        return [_construct(inner) for inner in config]
    if not isinstance(config, Mapping):
        return config
    arguments = {key: _construct(value) for key, value in config.items() if not str(key).startswith("_")}
    if "_target_" not in config:
        return arguments
    settings = {key: value for key, value in config.items() if str(key).startswith("_")}
    component = instantiate({**settings, "_recursive_": False}, **arguments)
    values.construction_arguments.set(component, arguments)
    return component


def check_keys(config: Any, where: str) -> None:
    """Raise `ConfigError` for a target that does not exist, and for a key or a value that its constructor rejects."""
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


def explain_error(error: BaseException, arguments: Sequence[str], name: str = "run") -> str:
    """Return the message for an error in a command line.

    Args:
        error: The error that Hydra raised.
        arguments: The command line.
        name: The config in conf/ that it overrides, without its suffix.
    """
    if isinstance(error, OverrideParseException):
        return invalid_override(error.override)
    if "Config group override must be a string" in str(error):
        return f"a group was set to null: {explain(ValueError(_NO_RETRIEVER))}"
    if match := re.search(r"Could not override '([^']+)'", str(error)):
        where, _, key = match[1].rpartition(".")
        other_arguments = [argument for argument in arguments if not argument.startswith((f"{match[1]}=", "-"))]
        with contextlib.suppress(HarnessError, AttributeError, KeyError, TypeError):
            config: Any = composed([argument for argument in other_arguments if "," not in argument], name=name)
            for part in where.split(".") if where else []:
                config = config[part]
            return unknown_key(where, key, [name for name in config if not name.startswith("_")])
        return f"the config has no key {match[1]!r}; see: harness --cfg job"
    return explain(error)
