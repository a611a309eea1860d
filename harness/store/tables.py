"""Tables beside a record, so that it can be shown without its dataset.

Scores of each query: query_id, metric, value. Excerpts: the queries with their properties, and the first hits of a run.
"""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from harness.errors import StoreError
from harness.types import Dataset, Excerpt, PerQuery, Run

if TYPE_CHECKING:
    import polars as pl

DEPTH = 10
"""Documents of a ranking that are kept; the whole run lies in runs/."""
_TEXT = 300
_FIRST = 100
_WORD = re.compile(r"\w\w+")


def read_scores(root: Path, paths: Sequence[str], metrics: Sequence[str] | None) -> dict[str, PerQuery]:
    """Many files at once, which takes a fraction of the time of one by one. Raises `StoreError`."""
    import polars as pl  # costs a command that reads no scores a third of a second

    try:
        rows = pl.scan_parquet([root / path for path in paths], include_file_paths="path", glob=False)
        if metrics is not None:
            rows = rows.filter(pl.col("metric").cast(pl.String).is_in(list(metrics)))
        table = rows.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise StoreError(_damaged([root / path for path in paths], str(error))) from None
    found: dict[str, dict[str, NDArray[np.float64]]] = {}
    ids: dict[str, pl.Series] = {}
    seen: list[tuple[pl.Series, list[str]]] = []
    for (path, metric), part in table.group_by(["path", "metric"], maintain_order=True):
        found.setdefault(str(path), {})[str(metric)] = part["value"].to_numpy()
        ids.setdefault(str(path), part["query_id"])
    of = {str(root / path): path for path in paths}
    return {of[path]: PerQuery(_shared(ids[path], seen), values) for path, values in found.items()}


def _damaged(paths: Sequence[Path], said: str) -> str:
    """What to say when some files cannot be read, naming the first that cannot be."""
    for path in paths:
        try:
            read_table(path)
        except StoreError as error:
            return str(error)
    return f"{paths[0].parent}: {said.splitlines()[0]}; move it away and measure again"


def read_table(path: Path) -> pa.Table:
    """A parquet file. Raises `StoreError` naming it."""
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path}: {str(error).splitlines()[0]}; move it away and measure again") from None


def _shared(ids: "pl.Series", seen: "list[tuple[pl.Series, list[str]]]") -> list[str]:
    """One list for all files with the same queries."""
    for own, kept in seen:
        if own.equals(ids):
            return kept
    seen.append((ids, ids.to_list()))
    return seen[-1][1]


def as_table(scores: PerQuery) -> pa.Table:
    """query_id, metric, value."""
    ids, values = scores.query_ids, scores.values
    return pa.table(
        {
            "query_id": pa.array([query for _ in values for query in ids], pa.string()),
            "metric": pa.array([name for name in values for _ in ids], pa.string()).dictionary_encode(),
            "value": pa.array(np.concatenate([*values.values()]) if values else [], pa.float64()),
        }
    )


def parquet(table: pa.Table) -> bytes:
    """A table as the bytes of a parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def excerpts(run: Run, dataset: Dataset) -> dict[Excerpt, pa.Table]:
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
