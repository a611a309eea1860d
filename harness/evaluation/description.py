"""Objects as JSON values that are equal for objects that do the same."""

import functools
import inspect
import json
import types
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from harness import versions
from harness.evaluation import values
from harness.evaluation.code import byte_code, is_users, names
from harness.evaluation.remembered import Changed, changed_by_use, construction_arguments, token
from harness.types.component import float_parameters

_ABSENT = object()
_CONTAINERS = (list, dict, set, bytearray, np.ndarray)
"""Types of attributes that may change while they stay the same object."""


@runtime_checkable
class HasWeights(Protocol):
    """A component whose output depends on model weights."""

    def weights_identity(self) -> str | None:
        """Return the hash or the revision of the weights, 1 to 64 characters; None where the arguments say it all."""
        ...


class _Snapshot(NamedTuple):
    """An object's attributes before its use."""

    value: Any
    described: Mapping[str, Any]
    """Descriptions by attribute."""
    marks: Mapping[str, Any]
    kept: frozenset[str]
    """Attributes that an earlier use changed; they are described as before that use."""


class Description:
    """Describes objects, and collects the modules that their classes and functions are from.

    An object counts by its class and by what `values.attributes` gives. Attributes that indexing and searching change,
    such as an index, count by their values before the first use, see `note_changes`; an attribute that the user changes
    between two uses counts by its new value.
    """

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self._above: list[int] = []
        self._functions: list[types.FunctionType] = []
        self._snapshots: list[_Snapshot] = []
        self._tokens = 0  # objects so far that are known by a token only

    def of(self, value: Any, key: str = "") -> Any:
        """Return the description of a value; `key` is the name that it has as an argument or an attribute."""
        if isinstance(value, str):
            return values.text(value, key)
        if values.is_scalar(value):
            return value
        if id(value) in self._above:
            return "recursive"
        self._above.append(id(value))
        try:
            return self._collection(value, key)
        finally:
            self._above.pop()

    def note_changes(self) -> None:
        """Note which attributes of the objects described so far have changed, after they were used."""
        for snapshot in self._snapshots:
            now = values.attributes(snapshot.value) or {}
            changes = {}
            for name in {*now, *snapshot.marks, *snapshot.kept}:
                mark = values.mark(snapshot.value, name, now)
                if mark is not None and (name in snapshot.kept or _is_changed(snapshot, name, now, mark)):
                    changes[name] = Changed(snapshot.described.get(name, _ABSENT), mark)
            changed_by_use.set(snapshot.value, changes)

    def _collection(self, value: Any, key: str) -> Any:
        if isinstance(value, Mapping):
            return {
                "items": [[str(name), self.of(inner, str(name))] for name, inner in value.items()]
            }  # in their order
        if isinstance(value, list | tuple):
            return [self.of(inner, key) for inner in value]
        if isinstance(value, set | frozenset):
            return sorted(json.dumps(self.of(inner, key), sort_keys=True) for inner in value)
        if isinstance(value, functools.partial):
            keywords = _with_floats(value.func, value.keywords)
            return [self.of(value.func), self.of(value.args), self.of(sorted(keywords.items()))]
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
        if self._tokens > tokens and arguments is not None:  # such as an open connection: its arguments are known
            self._tokens = tokens
            described = {name: self.of(inner, name) for name, inner in _with_floats(type(value), arguments).items()}
        parts = [self._code(type(value)), described]
        if (family := getattr(type(value), "family", None)) in versions.EMBEDDINGS:
            parts.append({"embeddings": versions.EMBEDDINGS[family]})
        return parts

    def _attributes(self, value: Any, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Describe an object's attributes, those that its use has changed as before the use."""
        changes = changed_by_use.get(value) or {}
        weights = value.weights_identity() if isinstance(value, HasWeights) else None
        marks = {name: values.mark(value, name, attributes) for name in {*attributes, *changes}}
        kept = {name: change.before for name, change in changes.items() if marks[name] == change.mark}
        described = {name: before for name, before in kept.items() if before is not _ABSENT}
        for name, attribute in _with_floats(type(value), attributes).items():
            if name not in kept and not (weights and name in ("model", "package")):  # only where weights are found
                described[name] = self.of(attribute, name)
        self._snapshots.append(_Snapshot(value, described, marks, frozenset(kept)))
        return {**described, "model": weights} if weights else described

    def _code(self, value: Any) -> Any:
        """Describe a class or a function by its name and, where it is the user's, by its code."""
        if isinstance(value, types.MethodType):
            return [self._code(value.__func__), self.of(value.__self__)]
        module = str(getattr(value, "__module__", None))
        kinds = value.__mro__ if inspect.isclass(value) else ()
        self.modules |= {module, *(kind.__module__ for kind in kinds)}
        name = f"{module}.{getattr(value, '__qualname__', value)}"
        if inspect.isclass(value):
            written = [kind for kind in value.__mro__ if is_users(kind.__module__)]
            return [name, [self._class(kind) for kind in written]] if written else name
        if not isinstance(value, types.FunctionType):
            owner = getattr(value, "__self__", None)
            return name if owner is None or isinstance(owner, types.ModuleType) else [name, self._token(owner)]
        cells = [[cell, self.of(inner)] for cell, inner in inspect.getclosurevars(value).nonlocals.items()]
        if not is_users(module) and value.__name__.isidentifier():
            return [name, cells, self.of(value.__defaults__), self.of(value.__kwdefaults__)]
        return [name, cells, self._function(value)]

    def _class(self, kind: type) -> Any:
        """Describe a user's class by its methods' code and its plain attributes."""
        members = []
        for name, member in sorted(vars(kind).items()):
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, types.FunctionType):
                members.append([name, self._function(function)])
            elif values.is_plain(member) and not name.startswith("__"):
                members.append([name, self.of(member, name)])
        return members

    def _function(self, function: types.FunctionType) -> Any:
        """Describe a function by its byte code, defaults, and the functions and plain values of its module it uses."""
        if function in self._functions:
            return "recursive"
        self._functions.append(function)
        used = {name: function.__globals__[name] for name in names(function.__code__) if name in function.__globals__}
        self.modules |= {value.__name__ for value in used.values() if isinstance(value, types.ModuleType)}
        from_module = {
            name: self._code(value) if isinstance(value, types.FunctionType) else self.of(value, name)
            for name, value in sorted(used.items())
            if values.is_plain(value) or (isinstance(value, types.FunctionType) and is_users(value.__module__))
        }
        defaults = [self.of(function.__defaults__), self.of(function.__kwdefaults__)]
        self._functions.pop()
        return [byte_code(function.__code__), *defaults, from_module]

    def _token(self, value: Any) -> str:
        self._tokens += 1
        return token(value)


def _is_changed(snapshot: _Snapshot, name: str, now: Mapping[str, Any], mark: Any) -> bool:
    """Return whether an attribute is another than before the use; only containers change in their place."""
    if mark != snapshot.marks.get(name):
        return True
    if not isinstance(now.get(name), _CONTAINERS):
        return False
    description = Description()
    description._above.append(id(snapshot.value))
    return bool(description.of(now[name], name) != snapshot.described.get(name))


def _with_floats(function: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with the integers of parameters that are annotated as float as floats."""
    names_of_floats = float_parameters(function)
    return {
        name: float(value) if type(value) is int and name in names_of_floats else value
        for name, value in arguments.items()
    }
