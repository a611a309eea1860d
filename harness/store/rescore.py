"""Compute metrics from stored runs, so that one that was not requested when measuring needs no second measurement."""

import re
import shlex
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from harness import versions
from harness.errors import ConfigError, HarnessError, UndecidedError
from harness.metrics import Metric, override, parse, score
from harness.types import PerQuery, Qrels, Record, Run
from harness.types.record import DEFAULT_K


class Missing(NamedTuple):
    """A record without a metric, and the reason why it cannot be computed."""

    record: Record
    reason: str


class Rescored(NamedTuple):
    """Records with a metric that was measured or computed."""

    records: list[Record]
    """All records; those that lack the metric are unchanged."""
    scores: dict[str, PerQuery]
    """Computed scores by the path that a record names in files.per_query."""
    missing: list[Missing]


def with_metric(
    records: Sequence[Record],
    metric: str,
    run_of: Callable[[Record], Run | None],
    qrels_of: Callable[[Record], Qrels | None],
) -> Rescored:
    """Return the records with a metric, computed from their runs where it was not measured.

    Args:
        records: Records, which are not changed; failed ones are returned as they are.
        metric: The canonical name of a metric. One that only a dataset defines is not computed.
        run_of: Returns the run of a record, None if there is none.
        qrels_of: Returns the judgements of a record's dataset, None if there are none.
    """
    rescored = Rescored([], {}, [])
    parsed = _parsed(metric)
    qrels: dict[str, Qrels | None] = {}
    for record in records:
        if record.status != "ok" or metric in record.metrics:
            rescored.records.append(record)
            continue
        fingerprint = record.dataset.fingerprint or record.id
        if fingerprint not in qrels:
            qrels[fingerprint] = qrels_of(record)
        result = _compute(record, metric, parsed, run_of, qrels[fingerprint])
        if isinstance(result, str):
            rescored.missing.append(Missing(record, result))
            rescored.records.append(record)
            continue
        means = {**record.metrics, metric: float(result.values[metric].mean())}
        rescored.records.append(record.model_copy(update={"metrics": means}))
        if record.files.per_query is not None:
            rescored.scores[record.files.per_query] = result
    return rescored


def _parsed(metric: str) -> Metric | None:
    try:
        return parse(metric)
    except ConfigError:
        return None


def _compute(
    record: Record, name: str, metric: Metric | None, run_of: Callable[[Record], Run | None], qrels: Qrels | None
) -> PerQuery | str:
    """Return a record's scores in a metric, or the reason why they cannot be computed."""
    if metric is None:
        return f"the dataset does not define {name}"
    if record.metric_version != versions.METRICS:
        return "it was measured with older definitions of the metrics"
    if metric.k is not None and metric.k > record.k:
        return f"its run has {record.k} documents for each query"
    if qrels is None:
        return "its judgements are not stored"
    if (run := run_of(record)) is None:
        return "its run is not stored"
    try:
        return PerQuery(*score(run, qrels, [metric]))
    except HarnessError as error:
        return str(error)


def merge(scores: PerQuery | None, computed: PerQuery) -> PerQuery:
    """Return per-query `scores` with the `computed` ones, in the order of the queries of `scores`."""
    if scores is None:
        return computed
    rows = {query: row for row, query in enumerate(computed.query_ids)}
    order = np.array([rows[query] for query in scores.query_ids], np.intp)
    return PerQuery(
        scores.query_ids, {**scores.values, **{name: values[order] for name, values in computed.values.items()}}
    )


def missing_error(metric: str, missing: Sequence[Missing]) -> UndecidedError:
    """Return the error about a `metric` that no record has; `missing` has at least one record."""
    known = ", ".join(sorted({name for each in missing for name in each.record.metrics}))
    return UndecidedError(
        f"no evaluation has {metric} (they have {known}), and it cannot be computed: {describe(metric, missing)}"
    )


def describe(metric: str, missing: Sequence[Missing]) -> str:
    """Return a sentence about the first of the `missing` records, with the command that measures their `metric`."""
    record, reason = missing[0]
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    names = f"{record.retriever.label} on {record.dataset.label}{more}"
    return f"{names}: {reason}; measure it: {_command(record, metric)}"


def _command(record: Record, metric: str) -> str:
    """Return the command, or for an evaluation from Python the call, that measures a metric of a record."""
    parsed = _parsed(metric)
    k = max(record.k, parsed.k or 0 if parsed else 0)
    if not record.command:
        return f"harness.evaluate(..., k={k}, metrics=[{metric!r}])"
    words = [word for word in shlex.split(record.command) if not word.startswith(("k=", "metrics="))]
    words += [f"k={k}"] if {k, record.k} != {DEFAULT_K} else []
    return " ".join(map(_quoted, [*words, override([metric])]))


def _quoted(word: str) -> str:
    """Quote a word for a shell; brackets of a list need no quotes."""
    return word if re.fullmatch(r"[\w@%+=:,./\[\]-]+", word) else shlex.quote(word)
