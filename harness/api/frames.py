"""Results as tidy columns: a row for each evaluation, query or hit."""

from collections.abc import Callable, Iterator
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.types import Record, Timing

if TYPE_CHECKING:
    import pandas as pd

    from harness.api.results import Results


def columns(results: "Results", level: str, metric: str | None = None) -> dict[str, list[Any]]:
    """Return the columns of a table of `results` with a row for each `level`: evaluation, query or hit.

    Args:
        results: The evaluations.
        level: Kind of the rows.
        metric: The only metric of evaluations and queries; None for all.

    Raises:
        ConfigError: The level is unknown.
    """
    levels: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "evaluation": partial(_evaluations, results, metric),
        "query": partial(_queries, results, metric),
        "hit": partial(_hits, results),
    }
    if level not in levels:
        raise ConfigError(f"level={level!r}; choices: {', '.join(levels)}")
    rows = list(levels[level]())
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _evaluations(results: "Results", metric: str | None) -> Iterator[dict[str, Any]]:
    for record in results.records:
        timing = record.timing
        latency = {f"latency_{name}_ms": value for name, value in timing.latency_ms.items()} if timing else {}
        yield {
            "retriever": record.retriever.label,
            "dataset": record.dataset.label,
            "split": record.dataset.split,
            **{name: value for name, value in record.metrics.items() if metric in (None, name)},
            "docs_per_s": timing.docs_per_s if timing else None,
            "queries_per_s": timing.queries_per_s if timing else None,
            **latency,
            **(_interval_columns(timing) if timing else {}),
            "busy": ", ".join(timing.busy) if timing else None,
            "index_mb": timing.index_bytes / 1e6 if timing else None,
            "documents": record.dataset.documents,
            "queries": record.dataset.queries,
            "status": record.status,
            "started": record.started.astimezone(UTC),
            "id": record.id,
        }


def _interval_columns(timing: Timing) -> dict[str, float | None]:
    """Return the ends of the intervals of throughputs and latencies: `queries_per_s_low`, `latency_p95_ms_high`."""
    columns: dict[str, float | None] = {}
    for name, interval in timing.intervals.items():
        stem = f"{name}_ms" if name.startswith("latency_") else name
        low, high = interval or (None, None)
        columns |= {f"{stem}_low": low, f"{stem}_high": high}
    return columns


def _queries(results: "Results", metric: str | None) -> Iterator[dict[str, Any]]:
    for record in results.records:
        per_query = results.scores.get(record.files.per_query or "")
        if per_query is None:
            continue
        for name, values in per_query.values.items():
            if metric not in (None, name):
                continue
            for query, value in zip(per_query.query_ids, values.tolist(), strict=True):
                yield {**_keys(record), "query_id": query, "metric": name, "value": value}


def _hits(results: "Results") -> Iterator[dict[str, Any]]:
    for record in results.records:
        run, dataset = results.run_of(record), results.dataset_of(record)
        for row, query in enumerate(run.query_ids):
            grades = dataset.qrels.get(query, {}) if dataset else {}
            docs, scores = run.hits(row)
            for rank, (doc, score) in enumerate(zip(docs, scores.tolist(), strict=True), start=1):
                hit = {"query_id": query, "rank": rank, "doc_id": doc, "score": score}
                yield {**_keys(record), **hit, **({"grade": grades.get(doc)} if dataset else {})}


def paired(scores: "pd.DataFrame", a: str, b: str) -> "pd.DataFrame":
    """Return the columns dataset, query_id, a, b and difference (b - a) of the queries that two rows both have.

    Args:
        scores: A row for each query of each retriever, in one metric.
        a: Label of one row.
        b: Label of the other row.
    """
    sides = [scores[scores["retriever"] == label] for label in (a, b)]
    both = sides[0].merge(sides[1], on=["dataset", "query_id"], suffixes=("_a", "_b"))
    columns = both[["dataset", "query_id"]].assign(a=both["value_a"], b=both["value_b"])
    return columns.assign(difference=columns["b"] - columns["a"])


def _keys(record: Record) -> dict[str, str]:
    return {"retriever": record.retriever.label, "dataset": record.dataset.label}


def has_settings(record: Record, name: str) -> bool:
    """Return True if `name` is the config with the settings of the retriever of `record`, such as ``bm25 k1=0.9``."""
    import yaml  # `import harness` loads no module that it does not need

    config, *settings = name.split()
    values = {key: yaml.safe_load(value) for key, _, value in (setting.partition("=") for setting in settings)}
    return (record.retriever.name, record.retriever.differences) == (config, values)
