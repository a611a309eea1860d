"""Tables stored with a record, so that it can be shown without its dataset.

Per-query scores: query_id, metric, value. Excerpts: the queries with their properties, the first hits of a run, and
the judgements.
"""

import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harness.errors import HarnessError, StoreError
from harness.types import Dataset, Excerpt, PerQuery, Qrels, Run, trec

if TYPE_CHECKING:
    import polars as pl

DEPTH = 10
"""Number of hits in the table of rankings; the complete run is in runs/."""
_MAX_TEXT_CHARS = 300
_MAX_FIRST_CHARS = 100
_WORD = re.compile(r"\w\w+")


def read_scores(root: Path, paths: Sequence[str], metrics: Sequence[str] | None) -> dict[str, PerQuery]:
    """Read the scores of many files in one scan, which is much faster than one by one. Raises `StoreError`.

    Args:
        root: The results folder.
        paths: Files of per-query scores, relative to the root.
        metrics: The metrics to read; None for all.
    """
    import polars as pl  # importing it takes a third of a second; commands that read no scores do not need it

    try:
        rows = pl.scan_parquet([root / path for path in paths], include_file_paths="path", glob=False)
        if metrics is not None:
            rows = rows.filter(pl.col("metric").cast(pl.String).is_in(list(metrics)))
        table = rows.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise StoreError(_unreadable_message([root / path for path in paths], str(error))) from None
    values_by_path: dict[str, dict[str, NDArray[np.float64]]] = {}
    ids_by_path: dict[str, pl.Series] = {}
    known_ids: list[tuple[pl.Series, list[str]]] = []
    for (path, metric), part in table.group_by(["path", "metric"], maintain_order=True):
        values_by_path.setdefault(str(path), {})[str(metric)] = part["value"].to_numpy()
        ids_by_path.setdefault(str(path), part["query_id"])
    relative = {str(root / path): path for path in paths}
    return {
        relative[path]: PerQuery(_shared_ids(ids_by_path[path], known_ids), values)
        for path, values in values_by_path.items()
    }


def _unreadable_message(paths: Sequence[Path], message: str) -> str:
    """Return the error message for unreadable files, naming the first one."""
    for path in paths:
        try:
            read_table(path)
        except StoreError as error:
            return str(error)
    return f"{paths[0].parent}: {message.splitlines()[0]}; move it away and measure again"


def read_table(path: Path) -> pa.Table:
    """Read a Parquet file. Raises `StoreError` naming it."""
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path}: {str(error).splitlines()[0]}; move it away and measure again") from None


def read_run(path: Path) -> Run:
    """Read a run in TREC's format, gzipped; one without hits is an empty file. Raises `StoreError` naming it."""
    try:
        with gzip.open(path) as file:
            is_empty = not file.read(1)
        return Run.from_dict({}) if is_empty else trec.read(path)
    except (OSError, EOFError, zlib.error, HarnessError) as error:
        raise StoreError(f"{path}: {error}; move it away and measure again") from None


def _shared_ids(ids: "pl.Series", known_ids: "list[tuple[pl.Series, list[str]]]") -> list[str]:
    """Return one shared list for all files with the same queries."""
    for series, id_list in known_ids:
        if series.equals(ids):
            return id_list
    known_ids.append((ids, ids.to_list()))
    return known_ids[-1][1]


def as_table(scores: PerQuery) -> pa.Table:
    """Return per-query scores as a table: query_id, metric, value."""
    ids, values = scores.query_ids, scores.values
    return pa.table(
        {
            "query_id": pa.array([query for _ in values for query in ids], pa.string()),
            "metric": pa.array([name for name in values for _ in ids], pa.string()).dictionary_encode(),
            "value": pa.array(np.concatenate([*values.values()]) if values else [], pa.float64()),
        }
    )


def parquet(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def excerpts(run: Run, dataset: Dataset) -> dict[Excerpt, pa.Table]:
    """Return the tables of `run` on `dataset`, which are stored with its record."""
    return {"rankings": rankings(run, dataset), "queries": queries(dataset), "qrels": judgements(dataset.qrels)}


def judgements(qrels: Qrels) -> pa.Table:
    """Return a row for each judgement, in the order of the qrels: query_id, doc_id, grade."""
    return pa.table(
        {
            "query_id": pa.array(
                [query for query, docs in qrels.items() for _ in docs], pa.string()
            ).dictionary_encode(),
            "doc_id": pa.array([doc for docs in qrels.values() for doc in docs], pa.string()),
            "grade": pa.array([grade for docs in qrels.values() for grade in docs.values()], pa.int32()),
        }
    )


def to_qrels(table: pa.Table) -> Qrels:
    """Return the qrels of a table of `judgements`."""
    grades: dict[str, dict[str, int]] = {}
    for query, doc, grade in zip(*(table[name].to_pylist() for name in table.column_names), strict=True):
        grades.setdefault(query, {})[doc] = grade
    return Qrels(grades)


def queries(dataset: Dataset) -> pa.Table:
    """Return a row for each query with a relevant document: query_id, text, words, relevant (documents), overlap.

    `overlap` is the share of the query's distinct words (two characters or more, lower case) that occur in a relevant
    document, averaged over its relevant documents in the corpus; null for a query without words or such documents.
    """
    ids = dataset.qrels.queries_with_relevant()
    texts = _texts(dataset, ids)
    relevant = {query: [doc for doc, grade in dataset.qrels[query].items() if grade > 0] for query in ids}
    document_words = _words_of(dataset, sorted({doc for docs in relevant.values() for doc in docs}))
    words = [_words(text) for text in texts]
    overlaps = [
        _mean(
            [
                len(query_words & document_words[doc]) / len(query_words)
                for doc in relevant[query]
                if doc in document_words
            ]
        )
        if query_words
        else None
        for query, query_words in zip(ids, words, strict=True)
    ]
    return pa.table(
        {
            "query_id": pa.array(ids, pa.string()),
            "text": pa.array([_truncate(text, _MAX_TEXT_CHARS) for text in texts], pa.string()),
            "words": pa.array([len(_WORD.findall(text)) for text in texts], pa.int32()),
            "relevant": pa.array([len(relevant[query]) for query in ids], pa.int32()),
            "overlap": pa.array(overlaps, pa.float64()),
        }
    )


def rankings(run: Run, dataset: Dataset) -> pa.Table:
    """Return the first hits of `run` for each query of `dataset` with a relevant document.

    Columns: query_id, docs (the first ten), grades (null for unjudged) and first (the text of the first hit).
    """
    top, rows = run.top(DEPTH), {query: row for row, query in enumerate(run.query_ids)}
    ids = dataset.qrels.queries_with_relevant()
    docs = [top.hits(rows[query])[0] if query in rows else [] for query in ids]
    grades = [[dataset.qrels[query].get(doc) for doc in hits] for query, hits in zip(ids, docs, strict=True)]
    first_texts = _corpus_texts(dataset, sorted({hits[0] for hits in docs if hits}))
    return pa.table(
        {
            "query_id": pa.array(ids, pa.string()),
            "docs": pa.array(docs, pa.list_(pa.string())),
            "grades": pa.array(grades, pa.list_(pa.int32())),
            "first": pa.array(
                [_truncate(first_texts.get(hits[0], ""), _MAX_FIRST_CHARS) if hits else None for hits in docs],
                pa.string(),
            ),
        }
    )


def _texts(dataset: Dataset, ids: list[str]) -> list[str]:
    positions = pc.index_in(pa.array(ids, pa.large_string()), value_set=dataset.queries.ids.arrow.combine_chunks())
    rows = [position for position in positions.to_pylist() if position is not None]
    texts = iter(dataset.queries.texts.take(np.array(rows, np.int64)))
    return ["" if position is None else next(texts) for position in positions.to_pylist()]


def _words_of(dataset: Dataset, docs: list[str]) -> dict[str, set[str]]:
    return {doc: _words(text) for doc, text in _corpus_texts(dataset, docs).items()}


def _corpus_texts(dataset: Dataset, docs: list[str]) -> dict[str, str]:
    """Return the texts of those documents that are in the corpus."""
    corpus = dataset.corpus
    positions = pc.index_in(corpus.ids.arrow, value_set=pa.array(docs, pa.large_string()))
    rows = np.flatnonzero(positions.is_valid().to_numpy())
    return dict(zip(corpus.ids.take(rows), corpus.texts.take(rows), strict=True))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _truncate(text: str, length: int) -> str:
    shortened = " ".join(text[: 2 * length].split())
    return shortened if len(shortened) <= length else shortened[: length - 1] + "…"
