"""A descriptor for attributes that `index` sets."""

from typing import Any, Generic, TypeVar

from harness.errors import RunError

T = TypeVar("T")


class SetByIndex(Generic[T]):
    """An attribute that `index` assigns; reading it earlier raises `RunError`.

    It is declared in the class: `_doc_ids = SetByIndex[StringColumn]()`. The assigned value is stored in the instance
    and takes precedence over the descriptor, so reading it is as fast as reading any other attribute.
    """

    def __get__(self, retriever: Any, owner: type | None = None) -> T:
        if retriever is None:  # read from the class, as inspection does
            return self  # type: ignore[return-value]
        raise RunError(f"{type(retriever).__name__} was not indexed before search: call index(corpus) first")
