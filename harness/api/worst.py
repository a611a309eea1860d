"""The queries with a retriever's lowest scores, and their relevant documents."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.leaderboard.compare import column_by_query
from harness.types import Dataset, Record

if TYPE_CHECKING:
    import pandas as pd

    from harness.api.results import Results


def queries(results: "Results", record: Record, n: int) -> "pd.DataFrame":
    """Return the `n` queries of a `record` with the lowest scores in the metric of `results`; see `Results.worst`."""
    import pandas as pd

    per_query = results.scores[record.files.per_query or ""]
    values = per_query.values[results.metric]
    dataset, run = results.dataset_of(record), results.run_of(record)
    texts = column_by_query(results.table, record, "queries", "text")
    first_texts = column_by_query(results.table, record, "rankings", "first")
    run_rows = {query: row for row, query in enumerate(run.query_ids)}
    rows = []
    for row in values.argsort(kind="stable")[:n].tolist():
        query = per_query.query_ids[row]
        hits = run.hits(run_rows[query])[0] if query in run_rows else []
        relevant = _relevant(dataset, query, hits) if dataset else None
        rows.append((query, texts.get(query), float(values[row]), first_texts.get(query), relevant))
    return pd.DataFrame(rows, columns=["query_id", "query", "score", "first", "relevant"])


def _relevant(dataset: Dataset, query: str, hits: Sequence[str]) -> list[dict[str, Any]]:
    """Return a query's relevant documents with their ranks, the most relevant first."""
    judged = sorted(dataset.qrels.get(query, {}).items(), key=lambda pair: -pair[1])
    ranks = {doc: rank for rank, doc in enumerate(hits, start=1)}
    return [
        {"doc_id": doc, "grade": grade, "rank": ranks.get(doc), "text": dataset.corpus.get(doc)}
        for doc, grade in judged
        if grade > 0
    ]
