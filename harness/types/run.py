"""Run: what a retriever returns and all that a metric reads. Its constructor holds the one order of documents."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import RunError
from harness.types.texts import StringColumn


class Run:
    """Ranked documents of many queries as columns.

    `docs` [queries, k] int32 points into `doc_ids` (-1: no hit), `scores` [queries, k] float32. Rows are put in order:
    score descending as float32, then document id descending by bytes, as trec_eval sorts; empty places come last.
    `ranks` [documents], the `Corpus.ranks` of the ids where they are known, spares a look at ids that are in order.
    Raises `RunError` for a NaN or infinite score, a document twice, a query twice, or arrays that do not fit.
    """

    __slots__ = ("doc_ids", "docs", "query_ids", "scores")

    def __init__(
        self,
        query_ids: Sequence[str],
        doc_ids: Sequence[str],
        docs: NDArray[np.integer[Any]],
        scores: NDArray[np.floating[Any]],
        ranks: NDArray[np.int32] | None = None,
    ) -> None:
        self.query_ids: Sequence[str] = list(query_ids)
        self.doc_ids = doc_ids
        self._check_shapes(docs, scores)
        found: NDArray[np.int32] = np.ascontiguousarray(docs, dtype=np.int32)
        with np.errstate(over="ignore"):  # what is too large becomes infinite and is refused
            valued: NDArray[np.float32] = np.add(scores, 0.0, dtype=np.float32, casting="same_kind")  # -0.0 becomes 0.0
        hit = found >= 0
        self._check_scores(valued, hit)
        if not hit.all():
            valued = np.where(hit, valued, np.float32(-np.inf))
        self._check_documents(found)
        found, self.scores = _by_score(found, valued)
        self.docs = _ties_by_id(found, self.scores, doc_ids, ranks)

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

    def __len__(self) -> int:
        return len(self.query_ids)

    @property
    def depth(self) -> int:
        """How many places a row has; fewer may be filled."""
        return int(self.docs.shape[1])

    def top(self, k: int) -> "Run":
        """The first k places of every query."""
        return self if k >= self.depth else _view(self.query_ids, self.doc_ids, self.docs[:, :k], self.scores[:, :k])

    def hits(self, query: int) -> tuple[list[str], NDArray[np.float32]]:
        """Document ids and scores [n] of the query at this position, best first."""
        docs = self.docs[query]
        docs = docs[docs >= 0]
        return ids_at(self.doc_ids, docs), self.scores[query, : len(docs)]

    def __repr__(self) -> str:
        return f"Run({len(self)} queries, depth {self.depth})"


def ids_at(doc_ids: Sequence[str], docs: NDArray[np.integer[Any]]) -> list[str]:
    """The ids of document numbers `docs` [n]."""
    return doc_ids.take(docs) if isinstance(doc_ids, StringColumn) else [doc_ids[doc] for doc in docs.tolist()]


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
    """Put documents of equal score in descending order of id, looking only at ids that tie."""
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
    place = np.zeros(len(doc_ids) + 1, np.uint64)  # the last slot is for -1
    place[best_first] = np.arange(len(unique), dtype=np.uint64)
    group = np.cumsum(~equal[:, :-1], axis=1, dtype=np.uint64)
    key = (group << np.uint64(32)) | place[part]
    key.sort(axis=1)
    ordered = docs.copy()
    ordered[rows] = np.where(tied, best_first[(key & np.uint64(0xFFFFFFFF)).astype(np.intp)], part)
    return ordered
