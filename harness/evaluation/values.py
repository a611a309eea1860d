"""Describe values by their content, as JSON values, and attach information to objects without changing them."""

import hashlib
import logging
import os
import re
import types
import weakref
from collections.abc import Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4

import numpy as np
from pydantic import BaseModel

from harness.errors import HarnessError
from harness.types import RetrieverInfo
from harness.types.protocols import Component
from harness.weights import Package, network_identity, tensor_array, tree_hash

T = TypeVar("T")
_PATH_KEYS = ("model", "path", "file", "folder", "dir")
_LONGEST_PATH = 4096
_hash = partial(hashlib.blake2b, digest_size=16)


def text(value: str, key: str = "") -> Any:
    """Return the hash of the file or folder that a text names, or the text itself if it names none.

    Args:
        value: The text.
        key: Name of the argument or attribute that has it. If it ends in model, path, file, folder or dir, the name of
            any existing file or folder is replaced by the hash. Under another key the text must have a separator
            (``"runs/a.npz"``, ``"./a"``) or, for a file, a suffix (``"a.npz"``), so that a word such as ``"data"`` is
            never taken for a folder in the working directory; ``"/"`` and ``".."`` are not names.
    """
    if not value or len(value) > _LONGEST_PATH or "\n" in value:
        return value
    path = Path(os.path.expanduser(value))  # noqa: PTH111  # keeps the name of a user who does not exist
    is_path = key.rpartition("_")[2] in _PATH_KEYS
    has_separator = ("/" in value or os.sep in value) and path.name not in ("", "..")
    try:
        if (is_path or has_separator) and path.is_dir():
            return {"content": tree_hash(path)}
        if (is_path or has_separator or path.suffix) and path.is_file():
            with path.open("rb") as file:
                return {"content": hashlib.file_digest(file, _hash).hexdigest()}
    except (OSError, HarnessError):
        return value
    return value


def plain(value: Any) -> Any:
    """Return the content of a value that has no items or attributes of interest; None for any other value."""
    if isinstance(value, types.ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, logging.Logger):
        return f"logger {value.name}"
    if isinstance(value, bytes | bytearray):
        return _hash(value).hexdigest()
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if isinstance(value, Path):
        return text(str(value), "path")
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        value = tensor_array(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        content = repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
        return [value.dtype.str, value.shape, _hash(content).hexdigest()]
    return str(value) if type(value).__module__ == "torch" else None  # a device, a dtype


def network(value: Any) -> str | None:
    """Return the hash of a torch network; None for any other object."""
    is_network = hasattr(value, "state_dict") and hasattr(value, "named_parameters")
    return network_identity(value) if is_network else None


def is_scalar(value: Any) -> bool:
    """Return True for None, a boolean, a number or a text."""
    return value is None or isinstance(value, bool | int | float | str)


def is_plain(value: Any) -> bool:
    """Return True for a scalar, bytes, and a container of these."""
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_plain, value))
    if isinstance(value, Mapping):
        return all(map(is_plain, value.values()))
    return is_scalar(value) or isinstance(value, bytes)


def attributes(value: Any) -> Mapping[str, Any] | None:
    """Return the values that distinguish an object from others of its class, by name; None if it has none.

    For a `Component` these are its constructor's arguments; if it has an attribute of an argument's name and both are
    scalars, the attribute's current value. For other objects they are the attributes.
    """
    if isinstance(value, Component):
        current = vars(value)
        return {
            name: current[name] if name in current and is_scalar(current[name]) and is_scalar(argument) else argument
            for name, argument in value.arguments.items()
        }
    if isinstance(value, BaseModel):
        return value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        return {} if isinstance(value, Package) else {each.name: getattr(value, each.name) for each in fields(value)}
    return _state(value)


def _state(value: Any) -> Mapping[str, Any] | None:
    if not hasattr(value, "__dict__"):
        return None
    try:
        state = value.__getstate__()
    except Exception:  # objects may refuse to be pickled by any exception
        return None
    if isinstance(state, tuple) and len(state) == 2:  # attributes, and those in slots
        return {**(state[0] or {}), **(state[1] or {})}
    return dict(state) if isinstance(state, Mapping) else dict(vars(value))


def mark(value: Any, name: str, known: Mapping[str, Any]) -> Any:
    """Return a cheap mark of an attribute's value, which changes when the attribute is assigned another value.

    Args:
        value: The object.
        name: The attribute's name.
        known: The result of `attributes` for the object.

    Returns:
        Type and value of a scalar; otherwise the object's id and length. None if `attributes` creates a new object in
        every call, whose id means nothing.
    """
    if name not in known:
        return "absent"
    attribute = known[name]
    if is_scalar(attribute):
        return type(attribute), attribute
    if isinstance(value, Component) or getattr(value, "__dict__", {}).get(name) is not attribute:
        return None
    return id(attribute), len(attribute) if isinstance(attribute, Sized) else None


class ByObject(Generic[T]):
    """A mapping from objects, compared by identity, to values. It keeps no object alive."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], T]] = {}

    def get(self, key: Any) -> T | None:
        """Return the value of an object; None if it has none."""
        reference, value = self._entries.get(id(key), (None, None))
        return value if reference is not None and reference() is key else None

    def set(self, key: Any, value: T) -> None:
        """Set the `value` of the object `key`; ignored for objects without weak references, such as ones with slots."""
        number = id(key)
        with suppress(TypeError):
            self._entries[number] = weakref.ref(key, lambda _: self._entries.pop(number, None)), value


@dataclass(frozen=True)
class Changed:
    """An attribute that indexing or searching has changed."""

    before: Any
    """Its description before the use."""
    mark: Any
    """Its mark after the use; if the present mark differs, the user has changed the attribute since."""


construction_arguments: ByObject[Mapping[str, Any]] = ByObject()
"""Arguments with which objects were constructed from a config."""
infos: ByObject[RetrieverInfo] = ByObject()
"""Descriptions of the retrievers that were constructed from a config."""
changed_by_use: ByObject[dict[str, Changed]] = ByObject()
"""Attributes that indexing and searching have changed, by name."""
_tokens: ByObject[str] = ByObject()


def token(value: Any) -> str:
    """Return a random text for an object, the same in every call; no other object in any process has it."""
    text = _tokens.get(value) or uuid4().hex
    _tokens.set(value, text)
    return text


def label_of(retriever: Any) -> str:
    """Return a retriever's name in tables, by default its class's name."""
    info = infos.get(retriever)
    return info.label if info else type(retriever).__name__
