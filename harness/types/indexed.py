"""IndexedMapping: the base of Corpus, Queries, Run and Qrels."""

from abc import abstractmethod
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from itertools import chain
from operator import index
from typing import Any, Self, SupportsIndex, TypeVar, overload

from harness.errors import DataError
from harness.types.strings import check_strings

V = TypeVar("V")


class IndexedMapping(Mapping[str, V]):
    """A read-only mapping from ids to values that keeps its order and is indexed by id, position or slice.

    Iterating yields ids, as for any mapping. `rows["a"]` is the value of the id "a", `rows[0]` and `rows[-1]` are the
    first and the last value, `rows[2:5]` is a container of the same type. `in` tests ids. An unknown id raises
    `KeyError`, a position that is out of range `IndexError`.
    """

    noun = "row"

    @abstractmethod
    def _by_id(self, key: str) -> V:
        """Return the value of an id. Raises `KeyError`."""

    @abstractmethod
    def _at(self, position: int) -> V:
        """Return the value at a position, 0 to len - 1."""

    @abstractmethod
    def _part(self, part: slice) -> Self:
        """Return a container of some of the rows."""

    @overload
    def __getitem__(self, key: str | SupportsIndex, /) -> V: ...
    @overload
    def __getitem__(self, key: slice, /) -> Self: ...
    def __getitem__(self, key: str | SupportsIndex | slice, /) -> V | Self:
        if isinstance(key, str):
            try:
                return self._by_id(key)
            except KeyError:
                raise KeyError(f"no {self.noun} {key!r} among {len(self):,}") from None
        if isinstance(key, slice):
            return self._part(key)
        position = index(key)
        if not -len(self) <= position < len(self):
            raise IndexError(f"no {self.noun} at position {position}: there are {len(self):,}")
        return self._at(position % len(self))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and super().__contains__(key)

    def _iter_values(self) -> Iterator[V]:
        return map(self._at, range(len(self)))

    def items(self) -> ItemsView[str, V]:
        """Return a view of (id, value) pairs, in order."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """Return a view of the values, in order."""
        return _Values(self)

    def to_dict(self) -> dict[str, V]:
        """Return a plain dict from ids to values."""
        return dict(self.items())


class _Items(ItemsView[str, V]):
    """Pairs that are read in order, without a look-up for each id."""

    def __init__(self, rows: IndexedMapping[V]) -> None:
        super().__init__(rows)
        self._rows = rows

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return zip(self._rows, self._rows._iter_values(), strict=True)


class _Values(ValuesView[V]):
    """Values that are read in order, without a look-up for each id."""

    def __init__(self, rows: IndexedMapping[V]) -> None:
        super().__init__(rows)
        self._rows = rows

    def __iter__(self) -> Iterator[V]:
        return self._rows._iter_values()


def copy_nested(values: Mapping[str, Mapping[str, Any]], noun: str) -> dict[str, dict[str, Any]]:
    """Copy `{query id: {document id: value}}`. Raises `DataError` for another shape or an id that is not a string."""
    shape = f"{{query id: {{document id: {noun}}}}}"
    if not isinstance(values, Mapping):
        raise DataError(f"a dict {shape} is needed, not {type(values).__name__}")
    for query, docs in values.items():
        if not isinstance(docs, Mapping):
            raise DataError(f"query {query!r}: a dict {shape} is needed, and {str(docs)[:60]} is {type(docs).__name__}")
    check_strings(values, "query id")
    if set(map(type, chain.from_iterable(values.values()))) - {str}:
        for query, docs in values.items():
            check_strings(docs, f"query {query!r}: document id")
    return {query: dict(docs) for query, docs in values.items()}
