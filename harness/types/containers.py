"""Building blocks of Corpus, Queries, Run and Qrels: IndexedMapping, StringColumn, columns of pandas DataFrames."""

from abc import abstractmethod
from collections.abc import Collection, ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from functools import cached_property
from itertools import chain
from operator import index
from typing import Any, Self, SupportsIndex, TypeVar, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import DataError

V = TypeVar("V")

QUERY_ID = ("query_id", "qid", "query-id", "query")
DOC_ID = ("doc_id", "docno", "corpus-id", "document")
SCORE = ("score",)
GRADE = ("grade", "relevance", "label", "score")
"""Accepted names of DataFrame columns, those of common retrieval tools; the first one is written."""


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
        """Return a container with the rows of a slice."""

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
    """A view of pairs that is iterated in order, without looking up each id."""

    def __init__(self, rows: IndexedMapping[V]) -> None:
        super().__init__(rows)
        self._rows = rows

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return zip(self._rows, self._rows._iter_values(), strict=True)


class _Values(ValuesView[V]):
    """A view of values that is iterated in order, without looking up each id."""

    def __init__(self, rows: IndexedMapping[V]) -> None:
        super().__init__(rows)
        self._rows = rows

    def __iter__(self) -> Iterator[V]:
        return self._rows._iter_values()


def copy_nested(values: Mapping[str, Mapping[str, Any]], noun: str) -> dict[str, dict[str, Any]]:
    """Copy a nested dict.

    Args:
        values: `{query id: {document id: value}}`.
        noun: Noun of a value in error messages, such as "grade".

    Raises:
        DataError: `values` has another shape, or an id is not a string.
    """
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


class StringColumn(Sequence[str]):
    """A read-only sequence of strings over Arrow memory; Python strings are created only for the values that are read.

    Args:
        values: Python strings, an Arrow array of strings, or another column, which is shared.
        name: Noun of one value in error messages, such as "document id".

    Raises:
        DataError: A value is not a string, or cannot be encoded as UTF-8; the message names the first one.
    """

    def __init__(
        self, values: "Iterable[str] | pa.Array | pa.ChunkedArray | StringColumn", name: str = "value"
    ) -> None:
        if isinstance(values, StringColumn):
            self.arrow: pa.ChunkedArray = values.arrow
            return
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            values = _to_arrow(list(values), name)
        chunked = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
        if not _holds_strings(chunked.type):
            check_strings(chunked.drop_null().slice(0, 1).to_pylist(), name)
        self.arrow = chunked.cast(pa.large_string())

    def __len__(self) -> int:
        return len(self.arrow)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "StringColumn": ...
    def __getitem__(self, index: int | slice) -> "str | StringColumn":
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return StringColumn(self.arrow.take(pa.array(range(start, stop, step), type=pa.int64())))
            return StringColumn(self.arrow.slice(start, max(0, stop - start)))
        return str(self.arrow[int(index)].as_py())

    def __iter__(self) -> Iterator[str]:
        for batch in self.batches():
            yield from batch

    def batches(self, size: int = 8192) -> Iterator[list[str]]:
        """Yield lists of at most `size` Python strings, in order."""
        for start in range(0, len(self), size):
            yield self.arrow.slice(start, size).to_pylist()

    def positions(self, values: "Iterable[str] | StringColumn") -> NDArray[np.int32]:
        """Return the position of each of n values in this column, shape [n]; -1 for a value that is not in it."""
        positions = pc.index_in(StringColumn(values).arrow, value_set=self.arrow.combine_chunks())
        return np.array(positions.fill_null(-1).to_numpy(), np.int32)

    def take(self, indices: NDArray[np.integer]) -> list[str]:
        """Return the strings at `indices` [n], as a list of n. Raises `IndexError` for an index out of range.

        The indices are sorted and read chunk by chunk: Arrow's `take` on all chunks would copy them into one first.
        """
        chunk_ends = self._chunk_ends
        order = np.argsort(indices, kind="stable")
        ascending, taken = np.asarray(indices)[order], np.empty(len(order), object)
        if len(ascending) and not 0 <= ascending[0] <= ascending[-1] < len(self):
            raise IndexError(f"an index lies outside 0..{len(self) - 1}")
        edges = np.searchsorted(ascending, np.concatenate([[0], chunk_ends]))
        for chunk in np.flatnonzero(np.diff(edges)).tolist():
            span = slice(edges[chunk], edges[chunk + 1])
            offsets = ascending[span] - (chunk_ends[chunk - 1] if chunk else 0)
            taken[order[span]] = self.arrow.chunk(chunk).take(pa.array(offsets, type=pa.int64())).to_pylist()
        strings: list[str] = taken.tolist()
        return strings

    @cached_property
    def _chunk_ends(self) -> NDArray[np.int64]:
        return np.cumsum([len(chunk) for chunk in self.arrow.iterchunks()], dtype=np.int64)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StringColumn) and bool(self.arrow.equals(other.arrow))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"StringColumn({len(self)})"


def check_strings(values: Collection[object], name: str) -> None:
    """Raise `DataError` for the first of `values` that is not a string, such as an integer id; `name` is its noun."""
    if all(issubclass(kind, str) for kind in set(map(type, values))):
        return
    value = next(value for value in values if not isinstance(value, str))
    # str(1.0) is "1.0" and str(nan) is "nan", neither of which is the id or the text that was meant
    advice = "" if isinstance(value, float) else f": pass str({value!r})"
    raise DataError(f"{name} {value!r} is of type {type(value).__name__} and must be a string{advice}")


def _to_arrow(values: list[str], name: str) -> pa.Array | pa.ChunkedArray:
    """Convert a list of strings and None. The type is inferred, because Arrow silently casts bytes to strings."""
    try:
        array = pa.array(values)
        if _holds_strings(array.type):
            return array
    except UnicodeEncodeError as error:
        raise DataError(f"{name} {error.object[:80]!r} has half a surrogate pair, which is not a character") from None
    except (pa.ArrowException, OverflowError):
        pass
    check_strings([value for value in values if value is not None], name)
    return pa.array(values, pa.large_string())


def _holds_strings(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def find_column(frame: Any, names: Sequence[str]) -> str | None:
    """Return the first of `names` that is a column of the DataFrame `frame`; None if none is. Raises `DataError`."""
    if not hasattr(frame, "iloc"):
        raise DataError(f"from_pandas takes a pandas DataFrame, not {type(frame).__name__}")
    return next((name for name in names if name in frame.columns), None)


def read_column(frame: Any, names: Sequence[str]) -> list[Any]:
    """Return the values of a column, None for missing ones.

    Args:
        frame: A pandas DataFrame.
        names: Accepted names of the column; the first that exists is read.

    Raises:
        DataError: No column has one of the names.
    """
    name = find_column(frame, names)
    if name is None:
        raise DataError(
            f"the DataFrame has no column {names[0]!r}, only {', '.join(map(str, frame.columns)) or 'none'}; accepted "
            f"names: {', '.join(names)}; rename a column: frame.rename(columns={{'NAME': {names[0]!r}}})"
        )
    column = frame[name]
    is_missing = column.isna().tolist()
    return [None if missing else value for value, missing in zip(column.tolist(), is_missing, strict=True)]


def read_complete(frame: Any, names: Sequence[str]) -> list[Any]:
    """Return the first column of `names` in `frame`, as `read_column`. Raises `DataError` if a value is missing."""
    values = read_column(frame, names)
    if None in values:
        raise DataError(f"column {find_column(frame, names)!r} has no value in row {values.index(None)}")
    return values
