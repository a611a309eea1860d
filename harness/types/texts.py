"""Corpus and Queries: ids beside texts, held in Arrow so that a million documents are not a million Python objects."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import DataError

_DIGEST_BYTES = 16


class Fingerprint:
    """A hash of rows that can be added to; the order of the rows does not count."""

    def __init__(self) -> None:
        self._total = 0

    def add(self, ids: Iterable[str], texts: Iterable[str]) -> None:
        """Add rows of an id and a text each."""
        for key, text in zip(ids, texts, strict=True):
            row = f"{len(key)} {key} {text}".encode("utf-8", "surrogatepass")
            self._total += int.from_bytes(hashlib.blake2b(row, digest_size=_DIGEST_BYTES).digest(), "big")

    def __str__(self) -> str:
        return f"{self._total % (1 << 8 * _DIGEST_BYTES):0{2 * _DIGEST_BYTES}x}"


class StringColumn(Sequence[str]):
    """A read-only sequence of strings over Arrow memory; Python strings come to be only for what is asked."""

    def __init__(self, values: "Iterable[str] | pa.Array | pa.ChunkedArray | StringColumn") -> None:
        if isinstance(values, StringColumn):
            self.arrow: pa.ChunkedArray = values.arrow
            return
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            values = pa.array(list(values), type=pa.large_string())
        chunked = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
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

    def take(self, indices: NDArray[np.integer]) -> list[str]:
        """The strings at `indices` ([n] integers), as a list of n."""
        ends = self._ends
        order = np.argsort(indices, kind="stable")  # chunk by chunk: taking from all would join them first
        sorted_, found = np.asarray(indices)[order], np.empty(len(order), object)
        if len(sorted_) and not 0 <= sorted_[0] <= sorted_[-1] < len(self):
            raise IndexError(f"an index lies outside 0..{len(self) - 1}")
        edges = np.searchsorted(sorted_, np.concatenate([[0], ends]))
        for chunk in np.flatnonzero(np.diff(edges)).tolist():
            span = slice(edges[chunk], edges[chunk + 1])
            own = sorted_[span] - (ends[chunk - 1] if chunk else 0)
            found[order[span]] = self.arrow.chunk(chunk).take(pa.array(own, type=pa.int64())).to_pylist()
        taken: list[str] = found.tolist()
        return taken

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Where each chunk ends."""
        return np.cumsum([len(chunk) for chunk in self.arrow.iterchunks()], dtype=np.int64)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StringColumn) and bool(self.arrow.equals(other.arrow))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"StringColumn({len(self)})"


class Texts:
    """Ids and texts of equal length; ids are unique and not empty.

    Raises `DataError` for a missing, empty or repeated id and for a missing text.
    """

    noun = "text"

    def __init__(self, ids: Iterable[str], texts: Iterable[str], *, fingerprint: str | None = None) -> None:
        self.ids = StringColumn(ids)
        self.texts = StringColumn(texts)
        if fingerprint is not None:  # read back from a file that was checked when it was written
            self.fingerprint = fingerprint
            return
        if len(self.ids) != len(self.texts):
            raise DataError(f"{len(self.ids)} {self.noun} ids but {len(self.texts)} texts: one text for each id")
        for column, name in ((self.ids.arrow, "id"), (self.texts.arrow, "text")):
            if column.null_count:
                raise DataError(f"{self.noun} number {pc.index(column.is_null(), True).as_py() + 1} has no {name}")
        self._check_ids()

    def _check_ids(self) -> None:
        if pc.index(self.ids.arrow, "").as_py() >= 0:
            raise DataError(f"{self.noun} number {pc.index(self.ids.arrow, '').as_py() + 1} has an empty id")
        if pc.count_distinct(self.ids.arrow).as_py() != len(self.ids):
            counts = pc.value_counts(self.ids.arrow)
            twice = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
            raise DataError(f"{self.noun} id {twice[0].as_py()!r} is there more than once: ids must be unique")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> Self:
        return type(self)(self.ids[part], self.texts[part])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content, 32 hex digits; the order of the rows does not count."""
        digest = Fingerprint()
        for ids, texts in zip(self.ids.batches(), self.texts.batches(), strict=True):
            digest.add(ids, texts)
        return str(digest)

    @cached_property
    def ranks(self) -> NDArray[np.int32]:
        """[n] place of each row when ids are sorted by bytes, highest first: trec_eval's order among equal scores."""
        ranks = np.empty(len(self), np.int32)
        ranks[pc.sort_indices(self.ids.arrow).to_numpy()[::-1]] = np.arange(len(self), dtype=np.int32)
        return ranks

    @classmethod
    def open(cls, path: Path, fingerprint: str) -> Self:
        """Map an Arrow IPC file with columns id and text, checked when it was written; pages are read when touched."""
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        return cls(table.column("id"), table.column("text"), fingerprint=fingerprint)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)})"


class Corpus(Texts):
    """The documents of a collection; a text is its title and body joined by one space."""

    noun = "document"


class Queries(Texts):
    """The queries of a collection."""

    noun = "query"
