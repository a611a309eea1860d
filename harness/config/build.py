"""Configs composed and turned into objects, with errors that a user can act on."""

import contextlib
import difflib
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

from harness.commands import COMMANDS
from harness.config.conf import CONF
from harness.config.resolvers import RESOLVERS
from harness.config.wording import RENAMED_KEYS, explained, unknown_key
from harness.errors import ConfigError, HarnessError, TargetError
from harness.evaluation import values
from harness.types.protocols import parameters

for _name, _resolve in RESOLVERS.items():
    OmegaConf.register_new_resolver(_name, _resolve, replace=True)
Config = TypeVar("Config", bound=BaseModel)
_NONE = "You must specify 'retriever'"  # as Hydra says it
_NAMES = r"(?:api[_-]?key|key|token|secret|password|authorization|credentials?)"
_SECRET = re.compile(rf"(?:^|[._-]){_NAMES}$", re.IGNORECASE)
_SECRET_INSIDE = re.compile(rf"(?:^|[\W_]){_NAMES}['\"]?\s*:", re.IGNORECASE)


def required(config: Mapping[str, Any], where: str = "") -> Mapping[str, Any]:
    """The config, when nothing in it is left to be set. Raises `ConfigError`."""
    for key, value in _leaves(config, where):
        if value == "???":
            raise ConfigError(f"{key} is not set; add: {key}=VALUE")
    return config


def composed(overrides: Sequence[str], folders: Sequence[str] = (), name: str = "run") -> dict[str, Any]:
    """The resolved config for some overrides, apart from any Hydra job that is running; a missing value is ???."""
    return _by_name(OmegaConf.to_container(composition(overrides, folders, name=name), resolve=True))


def choices(overrides: Sequence[str], folders: Sequence[str] = ()) -> dict[str, str]:
    """The option chosen in each group, those inside a retriever included, for some overrides."""
    return chosen(overrides, folders)[1]


def chosen(overrides: Sequence[str], folders: Sequence[str] = ()) -> tuple[DictConfig, dict[str, str]]:
    """`composition` and `choices` at once."""
    whole = composition(overrides, folders, hydra_too=True)
    own = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    return own, dict(whole.hydra.runtime.choices)


def composition(
    overrides: Sequence[str], folders: Sequence[str] = (), hydra_too: bool = False, name: str = "run"
) -> DictConfig:
    """conf/<name>.yaml for some overrides, not resolved, apart from any Hydra job that is running."""
    state = Singleton.get_state()
    try:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            quoted = ",".join(f"'file://{folder}'".replace("\\", "\\\\") for folder in folders)
            search = [f"hydra.searchpath=[{quoted}]"] if folders else []
            return compose(name, [*overrides, *search], return_hydra_config=hydra_too)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(refused(error, overrides, name)) from None
    finally:
        Singleton.set_state(state)


def plain(config: Any, where: str = "") -> dict[str, Any]:
    """Return a config as resolved dicts and lists; `where` is its key, for messages.

    Raises `ConfigError` for a value that is missing or cannot be resolved.
    """
    try:
        resolved = _by_name(OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        raise ConfigError(explained(error)) from None
    required(resolved, where)
    return resolved


def checked(kind: type[Config], config: Any, command: str) -> Config:
    """Return the config of a command as `kind`. Raises `ConfigError` naming key, value and choices."""
    resolved = {key: value for key, value in plain(config).items() if key != "experiment"}
    try:
        return kind.model_validate(resolved)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        said = first["msg"]
        if first["type"] == "extra_forbidden":
            siblings = _sibling_keys(kind, first["loc"])
            new = RENAMED_KEYS.get(str(first["loc"][-1]))
            said = f"no such key; choices: {', '.join(siblings)}"
            if new in siblings:
                said = f"the key has another name now, write: {new}"
        raise ConfigError(f"{key}={first['input']!r}: {said}; see the whole config: {command} --cfg job") from None


def _sibling_keys(kind: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Return the keys that there are beside one that is none."""
    for name in place[:-1]:
        kind = cast("type[BaseModel]", kind.model_fields[str(name)].annotation)
    return list(kind.model_fields)


def public(config: DictConfig) -> dict[str, Any]:
    """A config as it may be kept: resolved, but for values from environment variables, and without secrets."""
    return dict(_public(OmegaConf.to_container(config), OmegaConf.to_container(config, resolve=True)))


def masked(config: DictConfig) -> dict[str, Any]:
    """A config as it is written, interpolations and all, but without secrets."""
    raw = OmegaConf.to_container(config)
    return dict(_public(raw, raw))


def _public(raw: Any, resolved: Any, key: str = "") -> Any:
    if isinstance(resolved, Mapping):
        parts = raw if isinstance(raw, Mapping) else resolved
        return {str(name): _public(parts.get(name), inner, str(name)) for name, inner in resolved.items()}
    if isinstance(resolved, list):
        return [
            _public(one, inner) for one, inner in zip(raw if isinstance(raw, list) else resolved, resolved, strict=True)
        ]
    if isinstance(raw, str) and "${oc.env:" in raw:
        return raw
    return "***" if resolved and _SECRET.search(key) else resolved


def quoted(value: Any) -> str:
    """Return a value as an override of the command line writes it."""
    if isinstance(value, str):
        escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
        return f"'{escaped}'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(quoted, value))}]"
    return str(value)


def without_secret(override: str) -> str:
    """An override as it may be kept."""
    key, equals, value = override.partition("=")
    return f"{key}=***" if equals and (_SECRET.search(key) or _SECRET_INSIDE.search(value)) else override


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
        return _built(config)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, HarnessError):
            raise cause from None
        raise TargetError(f"{where}: {explained(error)}") from error


def _built(config: Any) -> Any:
    """Construct the targets in a config, inner ones first, and remember what each was constructed with."""
    if isinstance(config, list):
        return [_built(inner) for inner in config]
    if not isinstance(config, Mapping):
        return config
    arguments = {key: _built(value) for key, value in config.items() if not str(key).startswith("_")}
    if "_target_" not in config:
        return arguments
    settings = {key: value for key, value in config.items() if str(key).startswith("_")}
    component = instantiate({**settings, "_recursive_": False}, **arguments)
    values.construction_arguments.set(component, arguments)
    return component


def check_keys(config: Any, where: str) -> None:
    """Refuse a target that is not there, and a key or a kind of value that its constructor does not take."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            _check_target(config, where)
        for key, inner in config.items():
            check_keys(inner, f"{where}.{key}")


_MOVED = {
    "harness.encoders.words.Words": "harness.text.tokenizer.Tokenizer",
    "harness.retrievers.rerank.Cross": "harness.retrievers.rerank.CrossEncoderScorer",
    "harness.encoders.api.OpenAIEncoder": "harness.providers.api.OpenAIEncoder",
    "harness.encoders.api.CohereEncoder": "harness.providers.api.CohereEncoder",
}
"""Targets of older configs and the names that they have now."""


def _check_target(config: Mapping[str, Any], where: str) -> None:
    if (new := _MOVED.get(config["_target_"])) is not None:
        raise ConfigError(f"{where}._target_={config['_target_']!r} has another name now; write: _target_: {new}")
    try:
        target = get_object(config["_target_"])
    except Exception as error:
        raise TargetError(f"{where}._target_={config['_target_']!r} cannot be imported: {explained(error)}") from None
    known = parameters(target)
    if known is None:
        return
    for key, value in config.items():
        if key.startswith("_"):
            continue
        if key not in known:
            raise ConfigError(unknown_key(where, key, list(known)))
        if wanted := _wanted(value, known[key].annotation):
            raise ConfigError(f"{where}.{key}={value!r} must be {wanted}; see: harness --cfg job")


_KINDS = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", type(None): "null"}


def _wanted(value: Any, hint: Any) -> str | None:
    """What a parameter of this type takes, in words, when the value is a plain one of another kind."""
    unknown = hint is inspect.Parameter.empty or isinstance(hint, str)
    if unknown or not isinstance(value, str | int | float | bool | None):
        return None
    kinds = get_args(hint) if get_origin(hint) in (types.UnionType, Union) else (hint,)
    if (
        Any in kinds
        or any(kind is Path or get_origin(kind) is Literal for kind in kinds)
        or any(kind in _KINDS and _is(value, kind) for kind in kinds)
    ):
        return None
    return " or ".join(_KINDS.get(kind, "a group of keys with its own _target_ or a list") for kind in kinds)


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def refused(error: BaseException, arguments: Sequence[str], name: str = "run") -> str:
    """What to say of an error in the command line itself, which is one for conf/<name>.yaml."""
    if isinstance(error, OverrideParseException):
        word = error.override
        key, _, value = word.partition("=")
        if value:
            return f"{word!r} cannot be read: quote its value, \"{key}='...'\", or see: harness --help"
        near = difflib.get_close_matches(word.split()[0] if word.split() else "", COMMANDS, n=1)
        hint = f"did you mean the command {near[0]!r}?" if near else "write KEY=VALUE, such as retriever=bm25"
        return f"{word!r} is neither a command nor a setting; {hint}; see: harness --help"
    if "Config group override must be a string" in str(error):
        return f"a group was set to null: {explained(ValueError(_NONE))}"
    if match := re.search(r"Could not override '([^']+)'", str(error)):
        where, _, key = match[1].rpartition(".")
        others = [argument for argument in arguments if not argument.startswith((f"{match[1]}=", "-"))]
        with contextlib.suppress(HarnessError, AttributeError, KeyError, TypeError):
            config: Any = composed([argument for argument in others if "," not in argument], name=name)
            for part in where.split(".") if where else []:
                config = config[part]
            return unknown_key(where, key, [name for name in config if not name.startswith("_")])
        return f"the config has no key {match[1]!r}; see: harness --cfg job"
    return explained(error)
