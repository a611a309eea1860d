"""Configs composed and turned into objects, with errors that a user can act on."""

import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.cli.conf import conf
from harness.errors import ConfigError, HarnessError

CONF = conf()


def required(config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The config, when nothing in it is left to be set. Raises `ConfigError`."""
    for key, value in _leaves(config):
        if value == "???":
            raise ConfigError(f"{where}.{key} is not set; add: {where}.{key}=VALUE")
    return config


def composed(overrides: Sequence[str], folders: Sequence[str] = ()) -> dict[str, Any]:
    """The resolved run config for some overrides, apart from any Hydra job that is running; a missing value is ???."""
    return _by_name(OmegaConf.to_container(_composed(overrides, folders), resolve=True))


def choices(overrides: Sequence[str], folders: Sequence[str] = ()) -> dict[str, str]:
    """The option chosen in each group, those inside a retriever included, for some overrides."""
    return dict(_composed(overrides, folders, hydra_too=True).hydra.runtime.choices)


def _composed(overrides: Sequence[str], folders: Sequence[str], hydra_too: bool = False) -> DictConfig:
    state = Singleton.get_state()
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []
            return compose("run", [*overrides, *search], return_hydra_config=hydra_too)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explained(error)) from None
    finally:
        Singleton.set_state(state)


def plain(config: Any) -> dict[str, Any]:
    """A config as resolved dicts and lists. Raises `ConfigError` for a value that is missing or cannot be resolved."""
    try:
        resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explained(error)) from None
    return _by_name(resolved)


def _by_name(config: Any) -> dict[str, Any]:
    return {str(key): value for key, value in config.items()}


def differences(mine: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys of `mine` whose values differ from the default's, and those that only one of them has."""
    own, other = dict(_leaves(mine)), dict(_leaves(default))
    return {key: own.get(key) for key in sorted({*own, *other}) if own.get(key) != other.get(key)}


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def construct(config: Mapping[str, Any], where: str) -> Any:
    """The object that a config describes. `where` is its key, for messages. Raises `ConfigError`."""
    check_keys(config, where)
    try:
        return instantiate(dict(config), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, HarnessError):
            raise cause from None
        raise ConfigError(f"{where}: {explained(error)}") from error


def check_keys(config: Any, where: str) -> None:
    """Refuse a key that the target's constructor does not take, and a target that is not there."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            _check_target(config, where)
        for key, inner in config.items():
            check_keys(inner, f"{where}.{key}")


def _check_target(config: Mapping[str, Any], where: str) -> None:
    try:
        target = get_object(config["_target_"])
    except Exception as error:
        raise ConfigError(f"{where}._target_={config['_target_']!r} cannot be imported: {explained(error)}") from None
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in config:
        if not key.startswith("_") and key not in parameters:
            near = difflib.get_close_matches(key, parameters, n=1)
            hint = f"; did you mean {where}.{near[0]}?" if near else ""
            raise ConfigError(f"{where} has no key {key!r}; choices: {', '.join(parameters)}{hint}")


def explained(error: BaseException) -> str:
    """An error's own words without the frames and file names around them."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.lstrip().startswith(("full_key:", "object_type=", "reference_type="))]
    cause = error.__cause__
    said = "\n".join(kept) or type(error).__name__
    return f"{said}\n{explained(cause)}" if cause is not None and str(cause) and str(cause) not in said else said
