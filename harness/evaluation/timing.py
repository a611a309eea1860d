"""Index, search and score with one retriever on one dataset, and time each phase.

Retrievers are timed in this module only.
"""

import gc
from collections import ChainMap, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness import instrument, machine
from harness.environment import limited_threads
from harness.errors import ConfigError
from harness.evaluation.plan import UNTIMED, TimingPlan
from harness.evaluation.searches import QueryRunner, is_externally_indexed, search_all, search_one_by_one
from harness.metrics import Metric, check, parse, score
from harness.types import Dataset, EncoderInfo, RecallOfExact, Retriever, Run, Timing
from harness.types.protocols import is_precomputed


class RecordedMetadata(NamedTuple):
    """Metadata that a retriever recorded."""

    encoders: dict[str, EncoderInfo]
    recall_of_exact: dict[str, RecallOfExact]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """Everything that one evaluation measures."""

    run: Run
    query_ids: list[str]
    """Queries with a relevant document: the rows of `scores`."""
    scores: dict[str, NDArray[np.float64]]
    """Per-query values [queries] by metric name."""
    timing: Timing | None
    """None without a timing plan, or where the retriever has precomputed rankings."""
    description: RecordedMetadata
    """Metadata that the retriever recorded."""
    extra_metrics: dict[str, float] = field(default_factory=dict)
    """Means of metrics that the dataset defines, which have no per-query values."""

    @property
    def means(self) -> dict[str, float]:
        """Mean of each metric over all queries with a relevant document, and the dataset's extra metrics."""
        return {**{name: float(values.mean()) for name, values in self.scores.items()}, **self.extra_metrics}


def measure(
    retriever: Retriever,
    dataset: Dataset,
    *,
    k: int,
    metrics: Sequence[str],
    plan: TimingPlan | None,
    seed: int = 0,
) -> Measurement:
    """Index the corpus, search every query and score the run; every timed sample is kept.

    If the dataset has candidates, the retriever scores those of each query instead of searching. A retriever with
    precomputed rankings is not timed, because reading them takes less time than computing them.

    Args:
        retriever: The retriever; it sees neither the dataset's name nor its qrels.
        dataset: Corpus, queries and qrels.
        k: Documents retrieved for each query.
        metrics: Metric names such as ``ndcg@10``, with cutoffs of at most ``k``.
        plan: Warm-up, repeats and latencies; None to search once and time nothing.
        seed: Draws the queries that are timed one at a time.

    Raises:
        ConfigError: A metric is unknown or deeper than ``k``, or the retriever cannot score the dataset's candidates.
        RunError: The retriever returned a score that is NaN or infinite, or an unknown or repeated document.
    """
    parsed = parse_metrics(metrics, k)
    check(parsed, dataset.qrels)
    performed = _perform(retriever, dataset, k + 1 if dataset.drop_self_hits else k, plan, seed)
    ranking = drop_self_hits(performed.run) if dataset.drop_self_hits else performed.run
    run = ranking.top(k)
    query_ids, scores = score(run, dataset.qrels, parsed)
    extra_metrics = dict(dataset.extra_metrics(ranking)) if dataset.extra_metrics else {}
    return Measurement(run, query_ids, scores, performed.timing, performed.description, extra_metrics)


class _Performed(NamedTuple):
    run: Run
    timing: Timing | None
    description: RecordedMetadata


def _perform(retriever: Retriever, dataset: Dataset, depth: int, plan: TimingPlan | None, seed: int) -> _Performed:
    """Index the corpus and search every query for `depth` documents, timed according to the plan."""
    timed = plan is not None and not is_precomputed(retriever)
    active = plan if plan is not None and timed else UNTIMED
    runner = QueryRunner(retriever, dataset, depth)
    with limited_threads(plan.threads if plan else None) as threads:
        with instrument.recording() as warmup:
            runner.warm_up(active.warmup_documents)
        gc.collect()
        references = [machine.reference_kernels()] if timed else []
        with instrument.recording() as indexing:
            retriever.index(dataset.corpus)
        if timed:
            references.append(machine.reference_kernels())
        searching = search_all(runner, active, timed)
        references += searching.references
        alone = search_one_by_one(runner, active, seed)
        timing = Timing(
            warmup=warmup.phase(),
            index=indexing.phase(),
            searches=searching.phases,
            latencies_s=alone.latencies_s,
            latency_counters=alone.counters,
            latency_run_delay_s=alone.run_delay_s,
            documents=len(dataset.corpus),
            queries=len(dataset.queries),
            index_bytes=retriever.nbytes(),
            externally_indexed=is_externally_indexed(retriever),
            threads=threads,
            references=[kernels.cpu_s for kernels in references],
            reference_walls=[kernels.wall_s for kernels in references],
        )
    description = _description([warmup, indexing, searching.recorder], searching.recall_of_exact)
    return _Performed(searching.run, timing if timed else None, description)


def parse_metrics(names: Sequence[str], k: int) -> list[Metric]:
    """Parse metric `names`. Raises `ConfigError` if there are none, one is unknown, or a cutoff is above `k`."""
    if not names:
        raise ConfigError("metrics is empty; name at least one, such as metrics=[ndcg@10]")
    parsed = [parse(name) for name in names]
    for metric in parsed:
        if metric.k is not None and metric.k > k:
            raise ConfigError(f"metric {metric} looks deeper than k={k}; set k={metric.k} or more")
    return parsed


def _description(recorders: Sequence[instrument.Recorder], recalls: dict[str, RecallOfExact]) -> RecordedMetadata:
    """Merge the metadata that a retriever recorded in several phases; later values replace earlier ones."""
    fields: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for recorder in recorders:
        for component, values in recorder.encoders.items():
            fields[component] |= values
    encoders = {component: EncoderInfo(**values) for component, values in fields.items()}
    return RecordedMetadata(encoders, recalls, dict(ChainMap(*(recorder.metadata for recorder in reversed(recorders)))))


def drop_self_hits(run: Run) -> Run:
    """Return the run without each query's own document, the one with the query's id."""
    ids = pa.array(run.doc_ids.arrow.combine_chunks() if hasattr(run.doc_ids, "arrow") else list(run.doc_ids))
    self_hits = pc.fill_null(pc.index_in(pa.array(run.query_ids, pa.large_string()), value_set=ids), -2)
    keep = run.docs != self_hits.to_numpy(zero_copy_only=False)[:, None]
    return Run(run.query_ids, run.doc_ids, np.where(keep, run.docs, -1), run.scores)
