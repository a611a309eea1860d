"""Run: the ranked documents of many queries. Its constructor is the only place that defines the order of hits."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import DataError, RunError
from harness.types.containers import (
    DOC_ID,
    QUERY_ID,
    SCORE,
    IndexedMapping,
    StringColumn,
    check_strings,
    copy_nested,
    read_complete,
)
from harness.types.texts import Corpus

if TYPE_CHECKING:
    import pandas as pd


class Run(IndexedMapping[dict[str, float]]):
    """A mapping from query ids to `{document id: score}`, best document first; stored as columns.

    Each row is sorted by score as float32, descending, then by the bytes of the document id, descending, as trec_eval
    does; padding comes last.

    Args:
        query_ids: Ids of the queries, unique.
        doc_ids: Ids of the documents that `docs` points into.
        docs: Indices into `doc_ids`, shape [queries, k], -1 where there is no hit.
        scores: Scores, shape [queries, k]; stored as float32.
        ranks: `Corpus.ranks` of `doc_ids`, shape [documents]; optional, avoids reading ids of rows that are sorted.

    Raises:
        RunError: A score is NaN or infinite, a query or a document of a query is repeated, or shapes do not fit.
        DataError: An id is not a string.

    Examples:
        >>> run = Run.from_dict({"q1": {"d1": 0.5, "d2": 2.0}})
        >>> run["q1"], run.top(1)[0]
        ({'d2': 2.0, 'd1': 0.5}, {'d2': 2.0})
    """

    noun = "query"

    def __init__(
        self,
        query_ids: Sequence[str],
        doc_ids: Sequence[str],
        docs: NDArray[np.integer[Any]],
        scores: NDArray[np.floating[Any]],
        ranks: NDArray[np.int32] | None = None,
    ) -> None:
        self.query_ids: Sequence[str] = list(query_ids)
        check_strings(self.query_ids, "query id")
        self.doc_ids = doc_ids
        self._check_shapes(docs, scores)
        indices: NDArray[np.int32] = np.ascontiguousarray(docs, dtype=np.int32)
        self._check_doc_ids(indices)
        with np.errstate(over="ignore"):  # a score that is too large becomes infinite and is rejected
            values: NDArray[np.float32] = np.add(scores, 0.0, dtype=np.float32, casting="same_kind")  # -0.0 becomes 0.0
        is_hit = indices >= 0
        self._check_scores(values, is_hit)
        if not is_hit.all():
            values = np.where(is_hit, values, np.float32(-np.inf))
        self._check_documents(indices)
        indices, self.scores = _by_score(indices, values)
        self.docs = _ties_by_id(indices, self.scores, doc_ids, ranks)

    @classmethod
    def from_dict(cls, scores: Mapping[str, Mapping[str, float]]) -> "Run":
        """Build from `{query id: {document id: score}}`; a query may have no hits.

        Raises:
            DataError: An id is not a string or a score not a number; the message names the first one.
            RunError: A score is NaN or infinite.
        """
        hits = copy_nested(scores, "score")
        lengths = np.array([len(docs) for docs in hits.values()], np.int64)
        scores_in_order = [score for docs in hits.values() for score in docs.values()]
        values = _to_numbers(scores_in_order, lambda row: [query for query, docs in hits.items() for _ in docs][row])
        return _from_grouped(list(hits), lengths, [doc for docs in hits.values() for doc in docs], values)

    @classmethod
    def from_hits(cls, hits: Mapping[str, Mapping[str, float]], query_ids: Sequence[str], corpus: Corpus) -> "Run":
        """Build a run of `query_ids` over `corpus` from `hits`, `{query id: {document id: score}}`.

        Queries that are not in `hits` get no hits; other queries in `hits` are ignored. Raises as `from_dict`, and
        `RunError` for a document that is not in the corpus.
        """
        run = cls.from_dict({query: hits.get(query, {}) for query in query_ids})
        is_hit = run.docs >= 0
        docs = np.where(is_hit, corpus.ids.positions(run.doc_ids)[run.docs], -1)
        if (unknown := is_hit & (docs < 0)).any():
            row, column = np.argwhere(unknown)[0]
            raise RunError(
                f"query {query_ids[row]!r}: document {run.doc_ids[int(run.docs[row, column])]!r} is not in the corpus "
                f"of {len(corpus):,} documents (such as {corpus.ids[0]!r})"
            )
        return cls(query_ids, corpus.ids, docs, run.scores, corpus.ranks)

    @classmethod
    def from_columns(cls, query_ids: Iterable[str], doc_ids: Iterable[str], scores: Sequence[float]) -> "Run":
        """Build from `query_ids`, `doc_ids` and `scores` with a value per hit, in any order. Raises as `from_dict`."""
        queries, rows = _encode(query_ids, "query id")
        documents = StringColumn(doc_ids, "document id")
        values = _to_numbers(scores, lambda row: queries[rows[row]])
        if not len(rows) == len(documents) == len(values):
            raise DataError(f"{len(rows)} query ids, {len(documents)} document ids and {len(values)} scores: one each")
        order = np.argsort(rows, kind="stable")
        lengths = np.bincount(rows, minlength=len(queries))
        return _from_grouped(queries, lengths, documents.arrow.take(pa.array(order)), values[order])

    @classmethod
    def from_pandas(cls, frame: "pd.DataFrame") -> "Run":
        """Build from a DataFrame with a row for each hit, in any order; a rank column is ignored.

        The query is read from the first of `query_id`, `qid`, `query-id` and `query`, the document from `doc_id`,
        `docno`, `corpus-id` and `document`, the score from `score`. Raises as `from_dict`, and `DataError` for a
        missing column or value.
        """
        return cls.from_columns(*(read_complete(frame, names) for names in (QUERY_ID, DOC_ID, SCORE)))

    def to_pandas(self) -> "pd.DataFrame":
        """Return a DataFrame with the columns `query_id`, `doc_id`, `rank` (from 1) and `score`, a row for each hit."""
        rows, positions = np.nonzero(self.docs >= 0)
        columns = {
            "query_id": pa.array(self.query_ids, pa.large_string()).take(pa.array(rows)),
            "doc_id": pa.array(ids_at(self.doc_ids, self.docs[rows, positions]), pa.large_string()),
            "rank": positions + 1,
            "score": self.scores[rows, positions],
        }
        return pa.table(columns).to_pandas()

    def _check_shapes(self, docs: NDArray[np.integer[Any]], scores: NDArray[np.floating[Any]]) -> None:
        if docs.ndim != 2 or docs.shape != scores.shape or len(docs) != len(self.query_ids):
            raise RunError(
                f"a run of {len(self.query_ids)} queries needs docs and scores of shape [{len(self.query_ids)}, k], "
                f"not {list(docs.shape)} and {list(scores.shape)}"
            )
        if len(set(self.query_ids)) != len(self.query_ids):
            seen: set[str] = set()
            twice = next(query for query in self.query_ids if query in seen or seen.add(query))  # type: ignore[func-returns-value]
            raise RunError(f"query {twice!r} is in the run more than once")
        if docs.size and (docs.min() < -1 or docs.max() >= len(self.doc_ids)):
            raise RunError(f"a document number lies outside -1..{len(self.doc_ids) - 1}")

    def _check_scores(self, scores: NDArray[np.float32], hit: NDArray[np.bool_]) -> None:
        if not np.isfinite(scores).all():
            bad = ~np.isfinite(scores) & hit
            if bad.any():
                row, column = np.argwhere(bad)[0]
                raise RunError(
                    f"query {self.query_ids[row]!r}: a score is {scores[row, column]}; scores must be finite"
                )

    def _check_documents(self, docs: NDArray[np.int32]) -> None:
        ordered = np.sort(docs, axis=1)
        same = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        if same.any():
            row, column = np.argwhere(same)[0]
            doc = self.doc_ids[int(ordered[row, column])]
            raise RunError(f"query {self.query_ids[row]!r}: document {doc!r} is ranked more than once")

    def _check_doc_ids(self, docs: NDArray[np.int32]) -> None:
        """Raise `DataError` if the id of a ranked document is not a string."""
        if not isinstance(self.doc_ids, StringColumn):
            is_ranked = np.zeros(len(self.doc_ids) + 1, bool)  # the last slot is for -1
            is_ranked[docs] = True
            check_strings(ids_at(self.doc_ids, np.flatnonzero(is_ranked[:-1])), "document id")

    def __iter__(self) -> Iterator[str]:
        return iter(self.query_ids)

    def __len__(self) -> int:
        return len(self.query_ids)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {query: position for position, query in enumerate(self.query_ids)}

    def _by_id(self, key: str) -> dict[str, float]:
        return self._at(self._positions[key])

    def _at(self, position: int) -> dict[str, float]:
        doc_ids, scores = self.hits(position)
        return dict(zip(doc_ids, scores.tolist(), strict=True))

    def _part(self, part: slice) -> "Run":
        return _view(self.query_ids[part], self.doc_ids, self.docs[part], self.scores[part])

    @property
    def depth(self) -> int:
        """Number of columns, the maximum number of hits per query."""
        return int(self.docs.shape[1])

    def top(self, k: int) -> "Run":
        """Return a run of the first k hits of every query."""
        return self if k >= self.depth else _view(self.query_ids, self.doc_ids, self.docs[:, :k], self.scores[:, :k])

    def hits(self, query: int) -> tuple[list[str], NDArray[np.float32]]:
        """Return document ids and scores [n] of the query at a position, best first."""
        docs = self.docs[query]
        docs = docs[docs >= 0]
        return ids_at(self.doc_ids, docs), self.scores[query, : len(docs)]

    def __repr__(self) -> str:
        return f"Run({len(self)} queries, depth {self.depth})"


def ids_at(doc_ids: Sequence[str], docs: NDArray[np.integer[Any]]) -> list[str]:
    """Return the elements of `doc_ids` at the indices `docs` [n]."""
    return doc_ids.take(docs) if isinstance(doc_ids, StringColumn) else [doc_ids[doc] for doc in docs.tolist()]


def _encode(ids: Iterable[str], name: str) -> tuple[StringColumn, NDArray[np.int32]]:
    """Return the unique ids in the order of first occurrence, and the index of each id among them [n]."""
    column = StringColumn(ids, name).arrow
    if column.null_count:
        raise DataError(f"{name} number {pc.index(column.is_null(), True).as_py() + 1} is missing")
    encoded = column.combine_chunks().dictionary_encode()
    return StringColumn(encoded.dictionary), encoded.indices.to_numpy()


def _to_numbers(scores: Sequence[float], query_of: Callable[[int], str]) -> NDArray[np.float64]:
    if not all(issubclass(kind, Real) for kind in set(map(type, scores))):
        row, score = next((row, score) for row, score in enumerate(scores) if not isinstance(score, Real))
        raise DataError(
            f"query {query_of(row)!r}: score {score!r} is of type {type(score).__name__} and must be a number: "
            "pass float(score)"
        )
    return np.array(scores, np.float64)


def _from_grouped(
    query_ids: Sequence[str], lengths: NDArray[np.int64], doc_ids: Iterable[str], scores: NDArray[np.float64]
) -> Run:
    """Build a run from hits that are grouped by query, `lengths` [queries] of them for each."""
    unique, indices = _encode(doc_ids, "document id")
    docs = np.full((len(lengths), lengths.max(initial=0)), -1, np.int32)
    values = np.zeros(docs.shape)
    is_hit = np.arange(docs.shape[1]) < lengths[:, None]
    docs[is_hit], values[is_hit] = indices, scores
    return Run(query_ids, unique, docs, values)


def _view(
    query_ids: Sequence[str], doc_ids: Sequence[str], docs: NDArray[np.int32], scores: NDArray[np.float32]
) -> Run:
    run = Run.__new__(Run)  # rows already in order need no second check
    run.query_ids, run.doc_ids, run.docs, run.scores = query_ids, doc_ids, docs, scores
    return run


def _by_score(docs: NDArray[np.int32], scores: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Sort each row by score, descending, through one integer key: the score's ordered bits above its column."""
    if not (scores[:, 1:] > scores[:, :-1]).any():
        return docs, scores
    bits = scores.view(np.uint32)
    ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    key = ((~ascending).astype(np.uint64) << np.uint64(32)) | np.arange(docs.shape[1], dtype=np.uint64)
    key.sort(axis=1)
    order = (key & np.uint64(0xFFFFFFFF)).astype(np.intp)
    return np.take_along_axis(docs, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _ties_by_id(
    docs: NDArray[np.int32], scores: NDArray[np.float32], doc_ids: Sequence[str], ranks: NDArray[np.int32] | None
) -> NDArray[np.int32]:
    """Sort documents of equal score by id, descending; reads only the ids of tied documents."""
    equal = (scores[:, 1:] == scores[:, :-1]) & (docs[:, 1:] >= 0)
    if ranks is not None and not (equal & (ranks[docs[:, 1:]] < ranks[docs[:, :-1]])).any():
        return docs
    rows = np.flatnonzero(equal.any(axis=1))
    if not len(rows):
        return docs
    part, equal = docs[rows], np.pad(equal[rows], ((0, 0), (1, 1)))
    tied = equal[:, 1:] | equal[:, :-1]
    used = np.zeros(len(doc_ids), bool)
    used[part[tied]] = True
    unique = np.flatnonzero(used)
    ids = pa.array(ids_at(doc_ids, unique), pa.large_string())
    best_first = unique[pc.sort_indices(ids).to_numpy()[::-1]]
    id_ranks = np.zeros(len(doc_ids) + 1, np.uint64)  # the last slot is for -1
    id_ranks[best_first] = np.arange(len(unique), dtype=np.uint64)
    group = np.cumsum(~equal[:, :-1], axis=1, dtype=np.uint64)
    key = (group << np.uint64(32)) | id_ranks[part]
    key.sort(axis=1)
    ordered = docs.copy()
    ordered[rows] = np.where(tied, best_first[(key & np.uint64(0xFFFFFFFF)).astype(np.intp)], part)
    return ordered
