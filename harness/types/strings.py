"""StringColumn: strings in Arrow memory, so that a million of them are not a million Python objects."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import DataError


class StringColumn(Sequence[str]):
    """A read-only sequence of strings over Arrow memory; Python strings are made only for what is read.

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
        found = pc.index_in(StringColumn(values).arrow, value_set=self.arrow.combine_chunks())
        return np.array(found.fill_null(-1).to_numpy(), np.int32)

    def take(self, indices: NDArray[np.integer]) -> list[str]:
        """Return the strings at `indices` [n], as a list of n. Raises `IndexError` for an index that is out of range.

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
    """Refuse values that are not strings, such as integer ids. Raises `DataError` naming the first one."""
    if all(issubclass(kind, str) for kind in set(map(type, values))):
        return
    value = next(value for value in values if not isinstance(value, str))
    # str(1.0) is "1.0" and str(nan) is "nan", neither of which is the id or the text that was meant
    advice = "" if isinstance(value, float) else f": pass str({value!r})"
    raise DataError(f"{name} {value!r} is of type {type(value).__name__} and must be a string{advice}")


def _to_arrow(values: list[str], name: str) -> pa.Array | pa.ChunkedArray:
    """Convert a list of strings and None. The type is inferred, because Arrow casts bytes to strings without a word."""
    try:
        array = pa.array(values)
        if _holds_strings(array.type):
            return array
    except UnicodeEncodeError as error:
        raise DataError(f"{name} {error.object[:80]!r} has half a surrogate pair, which is no character") from None
    except (pa.ArrowException, OverflowError):
        pass
    check_strings([value for value in values if value is not None], name)
    return pa.array(values, pa.large_string())


def _holds_strings(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))
