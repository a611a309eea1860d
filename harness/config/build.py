"""Compose configs and construct objects from them, with errors that a user can act on."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.errors import HydraException, InstantiationException, OverrideParseException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from harness.config.conf import CONF
from harness.config.keys import check_keys
from harness.config.resolvers import RESOLVERS
from harness.config.wording import RENAMED_KEYS, explain, invalid_override, unknown_key
from harness.errors import ConfigError, HarnessError, TargetError
from harness.evaluation import values

for _name, _resolve in RESOLVERS.items():
    OmegaConf.register_new_resolver(_name, _resolve, replace=True)
Config = TypeVar("Config", bound=BaseModel)
_NO_RETRIEVER = "You must specify 'retriever'"  # Hydra's message
_SENSITIVE_KEYS = r"(?:api[_-]?key|key|token|secret|password|authorization|credentials?)"
_SECRET = re.compile(rf"(?:^|[._-]){_SENSITIVE_KEYS}$", re.IGNORECASE)
_SECRET_INSIDE = re.compile(rf"(?:^|[\W_]){_SENSITIVE_KEYS}['\"]?\s*:", re.IGNORECASE)


def require_complete(config: Mapping[str, Any], where: str = "") -> Mapping[str, Any]:
    """Return `config`, whose dotted key is `where`. Raises `ConfigError` if a value in it is missing (`???`)."""
    for key, value in leaves(config, where):
        if value == "???":
            raise ConfigError(f"{key} is not set; add: {key}=VALUE")
    return config


def composed(overrides: Sequence[str], folders: Sequence[str] = (), name: str = "run") -> dict[str, Any]:
    """Return the resolved config for overrides, independent of any running Hydra job; a missing value stays `???`.

    Args:
        overrides: Hydra overrides.
        folders: Additional config folders.
        name: The config in conf/, without its suffix.
    """
    return _container(compose_config(overrides, folders, name=name))


def choices(overrides: Sequence[str], folders: Sequence[str] = ()) -> dict[str, str]:
    """Return the option chosen in each group, including groups inside a retriever.

    Args:
        overrides: Hydra overrides.
        folders: Additional config folders.
    """
    return compose_with_choices(overrides, folders)[1]


def compose_with_choices(overrides: Sequence[str], folders: Sequence[str] = ()) -> tuple[DictConfig, dict[str, str]]:
    """Return the results of `compose_config` and `choices` for `overrides` and `folders`, composed only once."""
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
    """Return a config as resolved dicts and lists.

    Args:
        config: The config.
        where: Its dotted key, for messages.

    Raises:
        ConfigError: A value is missing or cannot be resolved.
    """
    try:
        resolved = _container(config)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from None
    require_complete(resolved, where)
    return resolved


def validate_config(kind: type[Config], config: Any, command: str) -> Config:
    """Validate a command's config with its pydantic model, and return the model's instance.

    Args:
        kind: The pydantic model of the command's config.
        config: The composed config.
        command: The command, for messages.

    Raises:
        ConfigError: A key or value is invalid; the message names it and the choices.
    """
    resolved = {key: value for key, value in resolve(config).items() if key != "experiment"}
    try:
        return kind.model_validate(resolved)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            siblings = _sibling_keys(kind, first["loc"])
            new = RENAMED_KEYS.get(str(first["loc"][-1]))
            message = f"no such key; choices: {', '.join(siblings)}"
            if new in siblings:
                message = f"the key was renamed; write: {new}"
        raise ConfigError(f"{key}={first['input']!r}: {message}; see the whole config: {command} --cfg job") from None


def _sibling_keys(kind: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Return the valid keys beside an unknown one."""
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
    """Yield the dotted key and the value of each leaf of a nested config.

    Args:
        value: The config, or a value in one.
        prefix: Dotted key of `value`.
    """
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def construct(config: Mapping[str, Any], where: str) -> Any:
    """Construct the object that a config describes.

    Args:
        config: The config, with the class or function under `_target_`.
        where: Its dotted key, for messages.

    Raises:
        ConfigError: The config is invalid, or the constructor raised an error.
    """
    check_keys(config, where)
    try:
        return _construct(config)
    except InstantiationException as error:
        if isinstance(error.__cause__, HarnessError):
            raise error.__cause__ from None
        raise TargetError(f"{where}: {explain(error)}") from error


def _construct(config: Any) -> Any:
    """Construct the targets in a config, inner ones first; store the arguments of each for its identity."""
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
