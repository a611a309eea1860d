"""Identity of a retriever and of an evaluation: hashes of everything that their numbers depend on.

A retriever is its class and arguments, with weights and files by their content, the user's own code, and the versions
of the computations (`harness.versions`). A config, an object in Python and an adapter of another tool that describe the
same retriever have the same identity.
"""

import functools
import hashlib
import inspect
import json
import logging
import os
import re
import types
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

import numpy as np
from pydantic import BaseModel

from harness import user_code, versions
from harness.errors import HarnessError
from harness.types.protocols import Component
from harness.weights import Package, network_identity, tensor_array, tree_hash

_PATH_KEYS = ("model", "path", "file", "folder", "dir")
_arguments: "weakref.WeakKeyDictionary[Any, Mapping[str, Any]]" = weakref.WeakKeyDictionary()
_labels: "weakref.WeakKeyDictionary[Any, str]" = weakref.WeakKeyDictionary()
_identities: "weakref.WeakKeyDictionary[Any, str]" = weakref.WeakKeyDictionary()


@runtime_checkable
class HasWeights(Protocol):
    """A component whose output depends on model weights."""

    def weights_identity(self) -> str:
        """Return the hash or the revision of the weights, 1 to 64 characters."""
        ...


def remember_arguments(component: Any, arguments: Mapping[str, Any]) -> None:
    """Note the arguments that an object of a user's class was constructed with, which then say what it is.

    Without them such an object is known by its attributes.
    """
    with suppress(TypeError):  # it has slots, or is unhashable
        _arguments[component] = dict(arguments)


def remember_label(retriever: Any, label: str) -> None:
    """Note how a retriever is called in tables, for adapters that name it to other tools."""
    with suppress(TypeError):
        _labels[retriever] = label


def label_of(retriever: Any) -> str:
    """Return how a retriever is called in tables, by default its class's name."""
    with suppress(TypeError):
        return _labels.get(retriever, type(retriever).__name__)
    return type(retriever).__name__


def retriever_identity(retriever: Any) -> str:
    """Return the hash of a retriever's class, arguments, weights and user code, 16 hex digits.

    It is computed when it is first asked for, so that what an object indexes or loads later does not count. An object
    that holds something without a describable content, such as an open connection, equals no other object.
    """
    with suppress(TypeError):
        if retriever in _identities:
            return _identities[retriever]
    description = _Description()
    content = {
        "retriever": description.of(retriever),
        "ranking": versions.RANKING,
        "code": user_code.code_hash(description.modules) if description.modules else None,
    }
    identity = _hash(content)
    with suppress(TypeError):
        _identities[retriever] = identity
    return identity


def evaluation_identity(
    retriever: str, dataset: str, *, k: int, metrics: Sequence[str], timing: Mapping[str, Any] | None, seed: int
) -> str:
    """Return the hash of everything that an evaluation's record depends on, 16 hex digits.

    Args:
        retriever: The retriever's identity.
        dataset: The dataset's fingerprint.
        k: Documents retrieved for each query.
        metrics: Names of the metrics.
        timing: The timing plan's settings; None where nothing is timed.
        seed: Seed of the draws, such as that of the queries timed one by one.
    """
    content = {
        "retriever": retriever,
        "dataset": dataset,
        "k": k,
        "metrics": list(metrics),
        "timing": timing,
        "seed": seed,
        "versions": {"metrics": versions.METRICS, "datasets": versions.DATASETS},
    }
    return _hash(content)


def config_identity(config: Mapping[str, Any]) -> str:
    """Return the hash of a config, 16 hex digits: the identity of what could not be constructed or read."""
    return _hash({"config": config})


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass
class _Description:
    """Describes objects as JSON values and collects the modules that their classes and functions are from."""

    modules: set[str] = field(default_factory=set)
    _above: list[int] = field(default_factory=list)
    _functions: list[types.FunctionType] = field(default_factory=list)

    def of(self, value: Any, key: str = "") -> Any:
        """Return a JSON value that is equal for objects that do the same."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return _content(value) if key.rpartition("_")[2] in _PATH_KEYS else value
        if id(value) in self._above:
            return "recursive"
        self._above.append(id(value))
        try:
            return self._collection(value)
        finally:
            self._above.pop()

    def _collection(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {"items": [[str(key), self.of(inner, str(key))] for key, inner in value.items()]}  # in their order
        if isinstance(value, list | tuple):
            return [self.of(inner) for inner in value]
        if isinstance(value, set | frozenset):
            return sorted(json.dumps(self.of(inner), sort_keys=True) for inner in value)
        if isinstance(value, functools.partial):
            return [self.of(value.func), self.of(value.args), self.of(sorted(value.keywords.items()))]
        plain = _plain(value)
        return self._object(value) if plain is None else plain

    def _object(self, value: Any) -> Any:
        if inspect.isclass(value) or inspect.isroutine(value):
            return self._code(value)
        arguments = value.arguments if isinstance(value, Component) else _remembered(value)
        if arguments is None:
            arguments = _state(value)
        if arguments is None:
            return uuid4().hex
        described = [self._code(type(value)), {name: self.of(inner, name) for name, inner in arguments.items()}]
        if isinstance(value, HasWeights):
            described[1].pop("package", None)  # only where the same weights are found
            described[1]["model"] = value.weights_identity()
        if (family := getattr(type(value), "family", None)) in versions.EMBEDDINGS:
            described.append({"embeddings": versions.EMBEDDINGS[family]})
        return described

    def _code(self, value: Any) -> Any:
        """Describe a class or a function by its name and, where its module has no file, by its code."""
        if isinstance(value, types.MethodType):
            return [self._code(value.__func__), self.of(value.__self__)]
        module = str(getattr(value, "__module__", None))
        kinds = value.__mro__ if inspect.isclass(value) else ()
        self.modules |= {name for name in (module, *(kind.__module__ for kind in kinds)) if not _is_known(name)}
        name = f"{module}.{getattr(value, '__qualname__', value)}"
        if inspect.isclass(value):
            own = [kind for kind in value.__mro__ if _is_users(kind.__module__)]
            return [name, [self._class(kind) for kind in own]] if own else name
        if not isinstance(value, types.FunctionType):
            owner = getattr(value, "__self__", None)
            return name if owner is None or isinstance(owner, types.ModuleType) else uuid4().hex
        cells = [[cell, self.of(held)] for cell, held in inspect.getclosurevars(value).nonlocals.items()]
        if not _is_users(module) and value.__name__.isidentifier():
            return [name, cells, self.of(value.__defaults__), self.of(value.__kwdefaults__)]
        return [name, cells, self._function(value)]

    def _class(self, kind: type) -> Any:
        """Describe a user's class by its methods' code and its plain attributes."""
        members = []
        for name, member in sorted(vars(kind).items()):
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, types.FunctionType):
                members.append([name, self._function(function)])
            elif _is_plain(member) and not name.startswith("__"):
                members.append([name, self.of(member)])
        return members

    def _function(self, function: types.FunctionType) -> Any:
        """Describe a function by its byte code, defaults, and the functions and plain values of its module it uses."""
        if function in self._functions:
            return "recursive"
        self._functions.append(function)
        names = user_code.used_names(function.__code__)
        used = {name: function.__globals__[name] for name in names if name in function.__globals__}
        self.modules |= {value.__name__ for value in used.values() if isinstance(value, types.ModuleType)}
        held = {
            name: self._code(value) if isinstance(value, types.FunctionType) else self.of(value)
            for name, value in sorted(used.items())
            if _is_plain(value) or (isinstance(value, types.FunctionType) and _is_users(value.__module__))
        }
        defaults = [self.of(function.__defaults__), self.of(function.__kwdefaults__)]
        self._functions.pop()
        return [user_code.byte_code(function.__code__), *defaults, held]


def _is_users(module: str) -> bool:
    return not _is_known(module) and user_code.is_users(module)


def _is_known(module: str) -> bool:
    """Return whether a module is the harness's or Python's built-in one, without looking for its file."""
    return module.partition(".")[0] in ("harness", "builtins")


def _is_plain(value: Any) -> bool:
    """Return whether a value is a number, a text, or a collection of them."""
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str | bytes)


def _remembered(value: Any) -> Mapping[str, Any] | None:
    with suppress(TypeError):
        return _arguments.get(value)
    return None


def _state(value: Any) -> Mapping[str, Any] | None:
    """Return the attributes that tell an object from others of its class; None where nothing does."""
    if hasattr(value, "state_dict") and hasattr(value, "named_parameters"):
        return {"network": network_identity(value)}
    if isinstance(value, BaseModel):
        return value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        return {} if isinstance(value, Package) else {one.name: getattr(value, one.name) for one in fields(value)}
    if not hasattr(value, "__dict__"):
        return None
    try:
        state = value.__getstate__()
    except Exception:  # a user's object may refuse to be pickled in any way: it equals no other
        return None
    return dict(state) if isinstance(state, Mapping) else dict(vars(value))


def _plain(value: Any) -> Any:
    """Return the content of a value that is neither a collection nor an object with arguments; None for another."""
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, logging.Logger):
        return f"logger {value.name}"
    if isinstance(value, bytes | bytearray):
        return hashlib.blake2b(value, digest_size=16).hexdigest()
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if isinstance(value, Path):
        return _content(str(value))
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        value = tensor_array(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        content = repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
        return [value.dtype.str, value.shape, hashlib.blake2b(content, digest_size=16).hexdigest()]
    return str(value) if type(value).__module__ == "torch" else None  # a device, a dtype


def _content(text: str) -> Any:
    """Return the hash of a file or folder of this name, or the text where there is none."""
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # keeps the name of a user who does not exist
    try:
        if text and path.is_dir():
            return {"content": tree_hash(path)}
        if text and path.is_file():
            return {"content": hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()}
    except (OSError, HarnessError):
        return text
    return text
