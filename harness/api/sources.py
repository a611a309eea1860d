"""Runs, judgements and tables of evaluations: in memory, or in a results folder."""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from harness.store import Store, rescore, tables
from harness.types import Dataset, Excerpt, PerQuery, Qrels, Record, Run

if TYPE_CHECKING:
    import pyarrow as pa

    from harness.evaluation.evaluate import Evaluated

DEFAULT_METRIC = "ndcg@10"


@dataclass(frozen=True)
class Sources:
    """Where the runs, judgements and tables of records are."""

    runs: Mapping[str, Run]
    """Runs in memory by record id."""
    datasets: Mapping[str, Dataset]
    """Datasets in memory by fingerprint."""
    store: Store | None

    def dataset(self, record: Record) -> Dataset | None:
        """Return a record's dataset if it is in memory."""
        return self.datasets.get(record.dataset.fingerprint or "")

    def run(self, record: Record) -> Run | None:
        """Return a record's run; None if it is neither in memory nor stored."""
        if record.id in self.runs:
            return self.runs[record.id]
        return self.store.run(record) if self.store else None

    def qrels(self, record: Record) -> Qrels | None:
        """Return the judgements of a record's dataset; None if they are neither in memory nor stored."""
        if (dataset := self.dataset(record)) is not None:
            return dataset.qrels
        return self.store.qrels(record) if self.store else None

    def table(self, record: Record, kind: Excerpt) -> "pa.Table | None":
        """Return the table `kind` of `record`; None if it can neither be computed in memory nor read."""
        dataset, run = self.dataset(record), self.run(record) if kind == "rankings" else None
        if dataset is not None and kind == "queries":
            return tables.queries(dataset)
        if dataset is not None and run is not None:
            return tables.rankings(run, dataset)
        return self.store.table(record, kind) if self.store else None


class InMemory(NamedTuple):
    """Evaluations of this process."""

    records: list[Record]
    scores: dict[str, PerQuery]
    """Per-query scores by the path that a record names; records that are not stored are given one."""
    runs: dict[str, Run]
    """Runs by record id."""


def collect(evaluated: "Iterable[Evaluated]") -> InMemory:
    """Return the records of evaluations with their scores and runs, which need not be stored."""
    memory = InMemory([], {}, {})
    for evaluation in evaluated:
        record = evaluation.record
        if evaluation.per_query is not None:
            if record.files.per_query is None:
                path = f"memory/{record.id}-{len(memory.records)}"
                record = record.model_copy(update={"files": record.files.model_copy(update={"per_query": path})})
            memory.scores[record.files.per_query or ""] = evaluation.per_query
        if evaluation.run is not None:
            memory.runs[record.id] = evaluation.run
        memory.records.append(record)
    return memory


def default_metric(records: Iterable[Record]) -> str:
    """Return the metric that orders the table of `records` by default: ndcg@10 or, if none has it, their first."""
    measured = list(dict.fromkeys(name for record in records for name in record.metrics))
    return DEFAULT_METRIC if DEFAULT_METRIC in measured or not measured else measured[0]


def with_metric(
    records: Sequence[Record], metric: str, sources: Sources, required: Collection[str]
) -> tuple[list[Record], dict[str, PerQuery]]:
    """Return the records with a metric, and the per-query scores that were computed.

    Args:
        records: Records, which are not changed.
        metric: Canonical name of the metric.
        sources: Source of the runs and judgements.
        required: Labels of the rows that need the metric; a warning names those that lack it.

    Raises:
        UndecidedError: No evaluation, or none of the rows that need the metric, has it; the message says how to measure
            it.
    """
    rescored = rescore.with_metric(records, metric, sources.run, sources.qrels)
    if rescored.missing and not any(metric in record.metrics for record in rescored.records):
        raise rescore.missing_error(metric, rescored.missing)
    missing = [each for each in rescored.missing if each.record.retriever.label in required]
    if missing:
        rows = [record for record in rescored.records if record.retriever.label in required]
        if not any(metric in record.metrics for record in rows):
            raise rescore.missing_error(metric, missing)
        warnings.warn(f"without {metric}: {rescore.describe(metric, missing)}", RuntimeWarning, stacklevel=4)
    return rescored.records, rescored.scores
