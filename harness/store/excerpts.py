"""Excerpts of a dataset and a run that are kept beside a record, so that it can be shown without its dataset."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.types import Dataset, Excerpt, Run

DEPTH = 10
"""Documents of a ranking that are kept; the whole run lies in runs/."""
_TEXT = 300
_FIRST = 100
_WORD = re.compile(r"\w\w+")


def tables(run: Run, dataset: Dataset) -> dict[Excerpt, pa.Table]:
    """Return every table that is kept beside the record of a run."""
    return {"rankings": rankings(run, dataset), "queries": queries(dataset)}


def queries(dataset: Dataset) -> pa.Table:
    """Return a row for each query with a relevant document: query_id, text, words, relevant (documents), overlap.

    `overlap` is the share of the query's distinct words (two characters or more, lower case) that a relevant document
    has, the mean over its relevant documents that the corpus holds; null for a query without words or such documents.
    """
    ids = dataset.qrels.queries_with_relevant()
    texts = _texts(dataset, ids)
    relevant = {query: [doc for doc, grade in dataset.qrels[query].items() if grade > 0] for query in ids}
    held = _words_of(dataset, sorted({doc for docs in relevant.values() for doc in docs}))
    words = [_words(text) for text in texts]
    overlaps = [
        _mean([len(own & held[doc]) / len(own) for doc in relevant[query] if doc in held]) if own else None
        for query, own in zip(ids, words, strict=True)
    ]
    return pa.table(
        {
            "query_id": pa.array(ids, pa.string()),
            "text": pa.array([_cut(text, _TEXT) for text in texts], pa.string()),
            "words": pa.array([len(_WORD.findall(text)) for text in texts], pa.int32()),
            "relevant": pa.array([len(relevant[query]) for query in ids], pa.int32()),
            "overlap": pa.array(overlaps, pa.float64()),
        }
    )


def rankings(run: Run, dataset: Dataset) -> pa.Table:
    """Return a row for each query with a relevant document.

    Columns: query_id, docs (the first ten), grades (null where not judged) and first (the text of the first hit).
    """
    top, rows = run.top(DEPTH), {query: row for row, query in enumerate(run.query_ids)}
    ids = dataset.qrels.queries_with_relevant()
    docs = [top.hits(rows[query])[0] if query in rows else [] for query in ids]
    grades = [[dataset.qrels[query].get(doc) for doc in found] for query, found in zip(ids, docs, strict=True)]
    firsts = _held(dataset, sorted({found[0] for found in docs if found}))
    return pa.table(
        {
            "query_id": pa.array(ids, pa.string()),
            "docs": pa.array(docs, pa.list_(pa.string())),
            "grades": pa.array(grades, pa.list_(pa.int32())),
            "first": pa.array(
                [_cut(firsts.get(found[0], ""), _FIRST) if found else None for found in docs], pa.string()
            ),
        }
    )


def _texts(dataset: Dataset, ids: list[str]) -> list[str]:
    places = pc.index_in(pa.array(ids, pa.large_string()), value_set=dataset.queries.ids.arrow.combine_chunks())
    held = [place for place in places.to_pylist() if place is not None]
    texts = iter(dataset.queries.texts.take(np.array(held, np.int64)))
    return ["" if place is None else next(texts) for place in places.to_pylist()]


def _words_of(dataset: Dataset, docs: list[str]) -> dict[str, set[str]]:
    return {doc: _words(text) for doc, text in _held(dataset, docs).items()}


def _held(dataset: Dataset, docs: list[str]) -> dict[str, str]:
    """The texts of those documents that the corpus holds."""
    corpus = dataset.corpus
    places = pc.index_in(corpus.ids.arrow, value_set=pa.array(docs, pa.large_string()))
    rows = np.flatnonzero(places.is_valid().to_numpy())
    return dict(zip(corpus.ids.take(rows), corpus.texts.take(rows), strict=True))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _cut(text: str, length: int) -> str:
    said = " ".join(text[: 2 * length].split())
    return said if len(said) <= length else said[: length - 1] + "…"
