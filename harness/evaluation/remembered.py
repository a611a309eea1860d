"""What is known of objects beside themselves, by object: construction arguments, config names, and effects of use."""

import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import uuid4

from harness.types import RetrieverInfo

T = TypeVar("T")


class ByObject(Generic[T]):
    """A mapping that tells objects apart by identity, not by equality, and keeps none of them alive."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], T]] = {}

    def get(self, key: Any) -> T | None:
        """Return the value of an object; None where it has none."""
        reference, value = self._entries.get(id(key), (None, None))
        return value if reference is not None and reference() is key else None

    def set(self, key: Any, value: T) -> None:
        """Keep a value for an object. One that cannot be referred to weakly, such as one with slots, has none."""
        number = id(key)
        with suppress(TypeError):
            self._entries[number] = weakref.ref(key, lambda _: self._entries.pop(number, None)), value


@dataclass(frozen=True)
class Changed:
    """An attribute that the use of its object has changed."""

    before: Any
    """Its description before the use."""
    mark: Any
    """Its mark after the use; with another one the user has changed it since."""


construction_arguments: ByObject[Mapping[str, Any]] = ByObject()
"""Arguments that objects of users' classes were constructed with from a config."""
infos: ByObject[RetrieverInfo] = ByObject()
"""Descriptions of the retrievers that were constructed from a config."""
changed_by_use: ByObject[dict[str, Changed]] = ByObject()
"""Attributes that indexing and searching have changed, by name."""
_tokens: ByObject[str] = ByObject()


def token(value: Any) -> str:
    """Return a text that tells an object from every other one in this process and in later ones."""
    text = _tokens.get(value) or uuid4().hex
    _tokens.set(value, text)
    return text


def label_of(retriever: Any) -> str:
    """Return how a retriever is called in tables, by default its class's name."""
    info = infos.get(retriever)
    return info.label if info else type(retriever).__name__
