"""Corpus and Queries: ids and texts in Arrow memory, so that a million documents are not a million Python objects."""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import DataError
from harness.types.containers import IndexedMapping, StringColumn, check_strings, find_column, read_column

if TYPE_CHECKING:
    import pandas as pd

_DIGEST_BYTES = 16


class Fingerprint:
    """An incremental hash of rows that does not depend on their order."""

    def __init__(self) -> None:
        self._total = 0

    def add(self, ids: Iterable[str], texts: Iterable[str]) -> None:
        """Add the rows of `ids` and `texts`, which are of equal length."""
        for key, text in zip(ids, texts, strict=True):
            row = f"{len(key)} {key} {text}".encode("utf-8", "surrogatepass")
            self._total += int.from_bytes(hashlib.blake2b(row, digest_size=_DIGEST_BYTES).digest(), "big")

    def __str__(self) -> str:
        return f"{self._total % (1 << 8 * _DIGEST_BYTES):0{2 * _DIGEST_BYTES}x}"


def join_title(title: str | None, text: str) -> str:
    """Return `title` and `text` joined by one space, without white space at either end, as in BEIR."""
    return f"{title or ''} {text}".strip()


class Texts(IndexedMapping[str]):
    """A mapping from unique ids to texts, in a fixed order. Base of `Corpus` and `Queries`.

    Args:
        ids: Ids, unique and not empty.
        texts: One text for each id; a text may be empty.
        fingerprint: Hash of the content, for rows that were checked when they were written; skips the checks.

    Raises:
        DataError: An id is missing, empty, repeated or not a string, or a text is missing or not a string.
    """

    noun = "text"
    _id_names: tuple[str, ...] = ("id",)
    _text_names: tuple[str, ...] = ("text",)

    def __init__(self, ids: Iterable[str], texts: Iterable[str], *, fingerprint: str | None = None) -> None:
        self.ids = StringColumn(ids, f"{self.noun} id")
        self.texts = StringColumn(texts, f"{self.noun} text")
        if fingerprint is not None:
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
            repeated = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
            raise DataError(f"{self.noun} id {repeated[0].as_py()!r} occurs more than once: ids must be unique")

    @classmethod
    def from_dict(cls, rows: Mapping[str, str | Mapping[str, Any]]) -> Self:
        """Build from `{id: text}` or, as BEIR has documents, `{id: {"title": ..., "text": ...}}`.

        Title and text are joined by one space and stripped; a text that is not in a dict stays as it is.

        Raises:
            DataError: As the constructor, and for a dict without a text.
        """
        if not isinstance(rows, Mapping):
            raise DataError(f"{cls.__name__}.from_dict takes a dict from ids to texts, not {type(rows).__name__}")
        return cls(rows, [cls._read_text(key, row) if isinstance(row, Mapping) else row for key, row in rows.items()])

    @classmethod
    def _read_text(cls, key: str, row: Mapping[str, Any]) -> str:
        title, text = row.get("title"), row.get("text")
        if text is None:
            detail = "it is None" if "text" in row else f"its keys are {', '.join(map(str, row)) or 'none'}"
            raise DataError(f"{cls.noun} {key!r} has no 'text'; {detail}")
        check_strings([text, title or ""], f"{cls.noun} {key!r}: title or text")
        return join_title(title, text)

    @classmethod
    def from_pandas(cls, frame: "pd.DataFrame") -> Self:
        """Build from a DataFrame with an id column, a text column and, where there is one, a title column.

        Ids are read from the first of `doc_id`, `docno`, `corpus-id`, `_id` and `id` for documents, of `query_id`,
        `qid`, `query-id`, `_id` and `id` for queries; texts from `text`, those of queries also from `query`.

        Raises:
            DataError: As the constructor, and for a missing column.
        """
        ids, texts = read_column(frame, cls._id_names), read_column(frame, cls._text_names)
        if find_column(frame, ["title"]):
            titles = read_column(frame, ["title"])
            check_strings([value for value in (*titles, *texts) if value is not None], f"{cls.noun} title or text")
            texts = [
                None if text is None else join_title(title, text) for title, text in zip(titles, texts, strict=True)
            ]
        return cls(ids, texts)

    def to_pandas(self) -> "pd.DataFrame":
        """Return a DataFrame with the columns `doc_id` or `query_id`, and `text`."""
        return pa.table({self._id_names[0]: self.ids.arrow, "text": self.texts.arrow}).to_pandas()

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def position(self, key: str) -> int:
        """Return the position of an id, from 0. Raises `KeyError`.

        A binary search over the ids in sorted order, which the first call prepares: 4 bytes for each id and no
        Python objects.
        """
        index = bisect_left(self._sorted, _bytes(key), key=lambda row: _bytes(self.ids[row]))
        if index == len(self) or self.ids[self._sorted[index]] != key:
            raise KeyError(key)
        return int(self._sorted[index])

    @cached_property
    def _sorted(self) -> NDArray[np.int32]:
        """Positions in ascending order of ids, shape [n]."""
        positions = np.empty(len(self), np.int32)
        positions[len(self) - 1 - self.ranks] = np.arange(len(self), dtype=np.int32)
        return positions

    def _by_id(self, key: str) -> str:
        return self.texts[self.position(key)]

    def _at(self, position: int) -> str:
        return self.texts[position]

    def _part(self, part: slice) -> Self:
        return type(self)(self.ids[part], self.texts[part])

    def _iter_values(self) -> Iterator[str]:
        return iter(self.texts)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content, 32 hex digits; it does not depend on the order of the rows."""
        digest = Fingerprint()
        for ids, texts in zip(self.ids.batches(), self.texts.batches(), strict=True):
            digest.add(ids, texts)
        return str(digest)

    @cached_property
    def ranks(self) -> NDArray[np.int32]:
        """Rank of each row by id, highest bytes first, shape [n]: trec_eval's order among equal scores."""
        ranks = np.empty(len(self), np.int32)
        ranks[pc.sort_indices(self.ids.arrow).to_numpy()[::-1]] = np.arange(len(self), dtype=np.int32)
        return ranks

    @classmethod
    def open(cls, path: Path, fingerprint: str) -> Self:
        """Open the Arrow IPC file at `path` memory-mapped; `fingerprint` is the hash of its columns id and text.

        The rows were checked when they were written and are not checked again.
        """
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        return cls(table.column("id"), table.column("text"), fingerprint=fingerprint)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)})"


class Corpus(Texts):
    """The documents of a dataset, by id; a text is the title and the body joined by one space.

    Examples:
        >>> corpus = Corpus.from_dict({"d1": "Cats purr.", "d2": {"title": "Dogs", "text": "bark."}})
        >>> corpus["d2"], corpus[0], list(corpus)
        ('Dogs bark.', 'Cats purr.', ['d1', 'd2'])
    """

    noun = "document"
    _id_names = ("doc_id", "docno", "corpus-id", "_id", "id")


class Queries(Texts):
    """The queries of a dataset, by id.

    Examples:
        >>> queries = Queries.from_dict({"q1": "which animals purr", "q2": "barking"})
        >>> queries["q1"], len(queries[:1])
        ('which animals purr', 1)
    """

    noun = "query"
    _id_names = ("query_id", "qid", "query-id", "_id", "id")
    _text_names = ("text", "query")


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")
