"""Identity of a retriever and of an evaluation: hashes of everything that their numbers depend on.

The identity of a retriever covers its class and settings, the content of weights and files, user code, and the versions
of the computations (`harness.versions`). A config, an object in Python and an adapter of another tool that describe the
same retriever have the same identity.
"""

import functools
import hashlib
import inspect
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from harness import user_code, versions
from harness.evaluation import values
from harness.evaluation.values import Changed, changed_by_use, construction_arguments, token
from harness.types.protocols import float_parameters

_ABSENT = object()
_CONTAINERS = (list, dict, set, bytearray, np.ndarray)
"""Types of attributes that may change while they stay the same object."""


def retriever_identity(retriever: Any) -> str:
    """Return the hash of a retriever's class, settings, weights and user code, 16 hex digits.

    A component of the harness is described by its constructor's arguments, an object of any other class by its
    attributes. If an attribute has no describable content, such as an open connection, the arguments in the object's
    config are used instead; without a config, the identity is unique to this object.

    The hash is computed in every call, so that it covers settings that were changed since the last call. Attributes
    that indexing and searching change inside `in_use` do not change it.
    """
    return _identity_of(Description(), retriever)


@contextmanager
def in_use(retriever: Any) -> Iterator[str]:
    """Yield a retriever's identity; attributes that change in the block count as state and not as settings."""
    description = Description()
    identity = _identity_of(description, retriever)
    try:
        yield identity
    finally:
        description.note_changes()


def _identity_of(description: "Description", retriever: Any) -> str:
    content = {
        "retriever": description.describe(retriever),
        "ranking": versions.RANKING,
        "code": user_code.code_hash(description.modules) if description.modules else None,
    }
    return _hash(content)


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
        seed: Seed of random draws, such as the sample of queries whose latency is measured.
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
    """Return the hash of a config, 16 hex digits; it stands in if a retriever or dataset could not be constructed."""
    return _hash({"config": config})


def _hash(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@runtime_checkable
class HasWeights(Protocol):
    """A component whose output depends on model weights."""

    def weights_identity(self) -> str | None:
        """Return a hash or a revision, 1 to 64 characters; None if the constructor's arguments identify the weights."""
        ...


class _Snapshot(NamedTuple):
    """An object's attributes before it indexes or searches."""

    value: Any
    """The object."""
    described: Mapping[str, Any]
    """Descriptions by attribute."""
    marks: Mapping[str, Any]
    """Results of `values.mark` by attribute."""
    changed: frozenset[str]
    """Attributes that an earlier use changed; they are described as before that use."""


class Description:
    """A describer of objects as JSON values, which also collects the modules of their classes and functions.

    An object is described by its class and its `values.attributes`. Attributes that indexing and searching change, such
    as an index, are described as before the first use, see `note_changes`; an attribute that the user changes between
    two uses is described by its new value.
    """

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self._ancestors: list[int] = []
        self._functions: list[types.FunctionType] = []
        self._snapshots: list[_Snapshot] = []
        self._tokens = 0  # number of objects that are described by a token only

    def describe(self, value: Any, key: str = "") -> Any:
        """Return the description of a `value`; `key` is the name of the argument or attribute that has it."""
        if isinstance(value, str):
            return values.text(value, key)
        if values.is_scalar(value):
            return value
        if id(value) in self._ancestors:
            return "recursive"
        self._ancestors.append(id(value))
        try:
            return self._compound(value, key)
        finally:
            self._ancestors.pop()

    def note_changes(self) -> None:
        """Remember which attributes of the described objects have changed since they were described."""
        for snapshot in self._snapshots:
            now = values.attributes(snapshot.value) or {}
            changes = {}
            for name in {*now, *snapshot.marks, *snapshot.changed}:
                mark = values.mark(snapshot.value, name, now)
                if mark is not None and (name in snapshot.changed or _is_changed(snapshot, name, now, mark)):
                    changes[name] = Changed(snapshot.described.get(name, _ABSENT), mark)
            changed_by_use.set(snapshot.value, changes)

    def _compound(self, value: Any, key: str) -> Any:
        if isinstance(value, Mapping):
            return {"items": [[str(name), self.describe(inner, str(name))] for name, inner in value.items()]}
        if isinstance(value, list | tuple):
            return [self.describe(inner, key) for inner in value]
        if isinstance(value, set | frozenset):
            return sorted(json.dumps(self.describe(inner, key), sort_keys=True) for inner in value)
        if isinstance(value, functools.partial):
            keywords = _with_floats(value.func, value.keywords)
            return [self.describe(value.func), self.describe(value.args), self.describe(sorted(keywords.items()))]
        plain = values.plain(value)
        return self._object(value) if plain is None else plain

    def _object(self, value: Any) -> Any:
        if inspect.isclass(value) or inspect.isroutine(value):
            return self._code(value)
        if (network := values.network(value)) is not None:
            return [self._code(type(value)), {"network": network}]
        attributes = values.attributes(value)
        if attributes is None:
            return self._token(value)
        tokens, arguments = self._tokens, construction_arguments.get(value)
        described = self._attributes(value, attributes)
        if self._tokens > tokens and arguments is not None:  # a value such as an open connection has only a token
            self._tokens = tokens
            described = {
                name: self.describe(inner, name) for name, inner in _with_floats(type(value), arguments).items()
            }
        parts = [self._code(type(value)), described]
        if (family := getattr(type(value), "family", None)) in versions.EMBEDDINGS:
            parts.append({"embeddings": versions.EMBEDDINGS[family]})
        return parts

    def _attributes(self, value: Any, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Describe an object's attributes; those that indexing or searching changed are described as before."""
        changes = changed_by_use.get(value) or {}
        weights = value.weights_identity() if isinstance(value, HasWeights) else None
        marks = {name: values.mark(value, name, attributes) for name in {*attributes, *changes}}
        unchanged = {name: change.before for name, change in changes.items() if marks[name] == change.mark}
        described = {name: before for name, before in unchanged.items() if before is not _ABSENT}
        for name, attribute in _with_floats(type(value), attributes).items():
            if name not in unchanged and not (weights and name in ("model", "package")):  # the weights identify these
                described[name] = self.describe(attribute, name)
        self._snapshots.append(_Snapshot(value, described, marks, frozenset(unchanged)))
        return {**described, "model": weights} if weights else described

    def _code(self, value: Any) -> Any:
        """Describe a class or a function by its name and, if it is user code, by its code."""
        if isinstance(value, types.MethodType):
            return [self._code(value.__func__), self.describe(value.__self__)]
        module = str(getattr(value, "__module__", None))
        kinds = value.__mro__ if inspect.isclass(value) else ()
        self.modules |= {
            name for name in (module, *(kind.__module__ for kind in kinds)) if not _is_harness_or_builtin(name)
        }
        name = f"{module}.{getattr(value, '__qualname__', value)}"
        if inspect.isclass(value):
            user_classes = [kind for kind in value.__mro__ if _is_user_code(kind.__module__)]
            return [name, [self._class(kind) for kind in user_classes]] if user_classes else name
        if not isinstance(value, types.FunctionType):
            owner = getattr(value, "__self__", None)
            return name if owner is None or isinstance(owner, types.ModuleType) else [name, self._token(owner)]
        closure = [
            [variable, self.describe(inner)] for variable, inner in inspect.getclosurevars(value).nonlocals.items()
        ]
        if not _is_user_code(module) and value.__name__.isidentifier():
            return [name, closure, self.describe(value.__defaults__), self.describe(value.__kwdefaults__)]
        return [name, closure, self._function(value)]

    def _class(self, kind: type) -> Any:
        """Describe a user's class by its methods' code and its plain attributes."""
        members = []
        for name, member in sorted(vars(kind).items()):
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, types.FunctionType):
                members.append([name, self._function(function)])
            elif values.is_plain(member) and not name.startswith("__"):
                members.append([name, self.describe(member, name)])
        return members

    def _function(self, function: types.FunctionType) -> Any:
        """Describe a function by its byte code, defaults, and the functions and plain values that it uses."""
        if function in self._functions:
            return "recursive"
        self._functions.append(function)
        used = {
            name: function.__globals__[name]
            for name in user_code.used_names(function.__code__)
            if name in function.__globals__
        }
        self.modules |= {value.__name__ for value in used.values() if isinstance(value, types.ModuleType)}
        from_module = {
            name: self._code(value) if isinstance(value, types.FunctionType) else self.describe(value, name)
            for name, value in sorted(used.items())
            if values.is_plain(value) or (isinstance(value, types.FunctionType) and _is_user_code(value.__module__))
        }
        defaults = [self.describe(function.__defaults__), self.describe(function.__kwdefaults__)]
        self._functions.pop()
        return [user_code.bytecode_hash(function.__code__), *defaults, from_module]

    def _token(self, value: Any) -> str:
        self._tokens += 1
        return token(value)


def _is_changed(snapshot: _Snapshot, name: str, now: Mapping[str, Any], mark: Any) -> bool:
    """Return True if an attribute differs from the snapshot; only containers are compared by content."""
    if mark != snapshot.marks.get(name):
        return True
    if not isinstance(now.get(name), _CONTAINERS):
        return False
    description = Description()
    description._ancestors.append(id(snapshot.value))
    return bool(description.describe(now[name], name) != snapshot.described.get(name))


def _with_floats(function: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments, with integers converted to floats for parameters that are annotated as float."""
    names_of_floats = float_parameters(function)
    return {
        name: float(value) if type(value) is int and name in names_of_floats else value
        for name, value in arguments.items()
    }


def _is_user_code(module: str) -> bool:
    return not _is_harness_or_builtin(module) and user_code.is_user_module(module)


def _is_harness_or_builtin(module: str) -> bool:
    """Return True if a module is part of the harness or is `builtins`; its file is not looked up."""
    return module.partition(".")[0] in ("harness", "builtins")
