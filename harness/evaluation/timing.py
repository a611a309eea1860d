"""Index, search and score with one retriever on one dataset, and time each phase.

Retrievers are timed in this module only.
"""

import gc
from collections import ChainMap, Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from harness import instrument
from harness.embedding_cache import cache
from harness.environment import limited_threads
from harness.errors import ConfigError
from harness.metrics import Metric, check, parse, score
from harness.retrievers.scored import check_scorer, score_candidates
from harness.types import (
    Counters,
    Dataset,
    EncoderInfo,
    Phase,
    Queries,
    RecallOfExact,
    Retriever,
    Run,
    Timing,
)
from harness.types.protocols import ExternallyIndexed, is_precomputed

_MAX_REPEATS = 50


class TimingPlan(BaseModel):
    """Timing of an evaluation: the `timing` group of the config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warmup_documents: int = Field(default=64, ge=0)
    """Documents indexed, and a few queries searched, before timing; 0: loading and compiling are timed too."""
    repeats: int = Field(default=3, ge=1)
    """Number of timed searches of all queries."""
    min_search_s: float = Field(default=0.0, ge=0)
    """Seconds of searching before which repeats go on, up to fifty, so that short searches are timed often."""
    max_search_s: float = Field(default=30.0, gt=0)
    """Seconds of searching after which no further repeat begins."""
    latency_queries: int = Field(default=100, ge=0)
    """Queries, drawn by the seed, that are searched one at a time."""
    threads: int | None = Field(default=None, ge=1)
    """Threads for BLAS, torch and our kernels; None for every core."""
    isolate: bool = False
    """Measure in a separate process, whose peak memory is stored."""


_UNTIMED = TimingPlan(warmup_documents=0, repeats=1, latency_queries=0)


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
    timed = plan is not None and not is_precomputed(retriever)
    threads_of_plan = plan.threads if plan else None
    active = plan if plan is not None and timed else _UNTIMED
    runner = QueryRunner(retriever, dataset, k + 1 if dataset.drop_self_hits else k)
    with limited_threads(threads_of_plan) as threads:
        with instrument.recording() as warmup:
            runner.warm_up(active.warmup_documents)
        gc.collect()
        references = [instrument.reference_kernels()] if timed else []
        with instrument.recording() as indexing:
            retriever.index(dataset.corpus)
        if timed:
            references.append(instrument.reference_kernels())
        searching = _search_all(runner, active, references if timed else None)
        latencies, latency_counters = _search_one_by_one(runner, active.latency_queries, seed)
        timing = Timing(
            warmup=warmup.phase(),
            index=indexing.phase(),
            searches=searching.phases,
            latencies_s=latencies,
            latency_counters=latency_counters,
            documents=len(dataset.corpus),
            queries=len(dataset.queries),
            index_bytes=retriever.nbytes(),
            threads=threads,
            references=references,
        )
    ranking = drop_self_hits(searching.run) if dataset.drop_self_hits else searching.run
    run = ranking.top(k)
    query_ids, scores = score(run, dataset.qrels, parsed)
    description = _description([warmup, indexing, searching.recorder], searching.recall_of_exact)
    extra_metrics = dict(dataset.extra_metrics(ranking)) if dataset.extra_metrics else {}
    return Measurement(run, query_ids, scores, timing if timed else None, description, extra_metrics)


def parse_metrics(names: Sequence[str], k: int) -> list[Metric]:
    """Parse metric `names`. Raises `ConfigError` if there are none, one is unknown, or a cutoff is above `k`."""
    if not names:
        raise ConfigError("metrics is empty; name at least one, such as metrics=[ndcg@10]")
    parsed = [parse(name) for name in names]
    for metric in parsed:
        if metric.k is not None and metric.k > k:
            raise ConfigError(f"metric {metric} looks deeper than k={k}; set k={metric.k} or more")
    return parsed


class QueryRunner:
    """Runs a dataset's queries against a retriever.

    Searches the full corpus or, for reranking datasets, scores each query's candidates.
    """

    def __init__(self, retriever: Retriever, dataset: Dataset, depth: int) -> None:
        self._retriever, self._dataset, self._depth = retriever, dataset, depth
        self._candidates = dataset.candidate_matrix
        if self._candidates is not None:
            check_scorer(retriever)

    @property
    def queries(self) -> Queries:
        """The dataset's queries."""
        return self._dataset.queries

    def prepare(self, query: int | None = None) -> Callable[[], Run]:
        """Return a callable that runs one query, or all queries if ``query`` is None.

        Inputs are prepared here so that the callable contains only work that should be timed.
        """
        rows = slice(None) if query is None else slice(query, query + 1)
        queries = self.queries if query is None else self.queries[rows]
        if self._candidates is None:
            return partial(self._retriever.search, queries, self._depth)
        return partial(score_candidates, self._retriever, queries, self._dataset.corpus.ids, self._candidates[rows])

    def warm_up(self, n_documents: int) -> None:
        """Index ``n_documents`` documents and run a few queries, to load weights and compile kernels."""
        if not n_documents:
            return
        with instrument.listening(None), cache.using("off"):
            is_external = isinstance(self._retriever, ExternallyIndexed) and self._retriever.is_externally_indexed
            corpus = self._dataset.corpus if is_external else self._dataset.corpus[:n_documents]
            queries = self.queries[:8]
            self._retriever.index(corpus)
            if self._candidates is None:
                self._retriever.search(queries, min(self._depth, n_documents))
            else:
                docs = np.arange(min(self._candidates.shape[1], len(corpus)), dtype=np.int32)
                score_candidates(self._retriever, queries, corpus.ids, np.tile(docs, (len(queries), 1)))


class _Searches(NamedTuple):
    run: Run
    phases: list[Phase]
    recorder: instrument.Recorder
    """Of the last repeat."""
    recall_of_exact: dict[str, RecallOfExact]


def _search_all(runner: QueryRunner, plan: TimingPlan, references: list[dict[str, float]] | None) -> _Searches:
    """Search all queries, repeatedly; reference kernels run after each repeat."""
    phases: list[Phase] = []
    search = runner.prepare()
    while _needs_repeat(phases, plan):
        with instrument.recording() as recorder:
            run = search()
        phases.append(recorder.phase())
        if references is not None:
            references.append(instrument.reference_kernels())
    with instrument.listening(None):
        recalls = {
            name: RecallOfExact(k=k, recall=measure_recall()) for name, (k, measure_recall) in recorder.deferred.items()
        }
    return _Searches(run, phases, recorder, recalls)


def _description(recorders: Sequence[instrument.Recorder], recalls: dict[str, RecallOfExact]) -> RecordedMetadata:
    """Merge the metadata that a retriever recorded in several phases; later values replace earlier ones."""
    fields: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for recorder in recorders:
        for component, values in recorder.encoders.items():
            fields[component] |= values
    encoders = {component: EncoderInfo(**values) for component, values in fields.items()}
    return RecordedMetadata(encoders, recalls, dict(ChainMap(*(recorder.metadata for recorder in reversed(recorders)))))


def _needs_repeat(searches: Sequence[Phase], plan: TimingPlan) -> bool:
    """Return True if the plan requires another search after the given ones."""
    spent = sum(search.wall_s for search in searches)
    if len(searches) < plan.repeats:
        return spent < plan.max_search_s
    return spent < plan.min_search_s and len(searches) < _MAX_REPEATS


def _search_one_by_one(runner: QueryRunner, n: int, seed: int) -> tuple[list[float], dict[str, Counters]]:
    """Return the latency in seconds of each of n queries, and by component what they cost at a provider."""
    rows = np.random.default_rng(seed).permutation(len(runner.queries))[:n]
    latencies: list[float] = []
    price: Counter[str] = Counter()
    with instrument.listening(None):
        for row in rows.tolist():
            search = runner.prepare(row)
            with instrument.recording(metadata=False) as recorder:
                search()
            latencies.append(recorder.wall_s)
            price.update(
                {name: counts["micro_usd"] for name, counts in recorder.counters.items() if "micro_usd" in counts}
            )
    return latencies, {name: Counters(micro_usd=total) for name, total in price.items()}


def drop_self_hits(run: Run) -> Run:
    """Return the run without each query's own document, the one with the query's id."""
    ids = pa.array(run.doc_ids.arrow.combine_chunks() if hasattr(run.doc_ids, "arrow") else list(run.doc_ids))
    self_hits = pc.fill_null(pc.index_in(pa.array(run.query_ids, pa.large_string()), value_set=ids), -2)
    keep = run.docs != self_hits.to_numpy(zero_copy_only=False)[:, None]
    return Run(run.query_ids, run.doc_ids, np.where(keep, run.docs, -1), run.scores)
