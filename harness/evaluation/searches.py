"""Timed searches: all queries in one batch, repeatedly, and queries one at a time."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from harness import instrument, machine
from harness.embedding_cache import cache
from harness.evaluation.plan import TimingPlan
from harness.machine import KernelTimes
from harness.retrievers.scored import check_scorer, score_candidates
from harness.types import Counters, Dataset, Phase, Queries, RecallOfExact, Retriever, Run
from harness.types.protocols import ExternallyIndexed

_MAX_REPEATS = 50
_REFERENCE_INTERVAL_S = 0.25
"""Seconds of searching after which the reference kernels are timed again."""
_WARMUP_QUERIES = 8
_WARMUP_SINGLE_QUERIES = 3
_ENOUGH_SINGLE = 299
"""Searches of single queries up to which queries are repeated: the fewest with an interval of the 99th percentile."""


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
        """Index ``n_documents`` documents and run a few queries, to load weights and compile kernels.

        The queries are searched in one batch and then some of them alone, because the kernels of both may differ.
        """
        if not n_documents:
            return
        with instrument.listening(None), cache.using("off"):
            corpus = (
                self._dataset.corpus if is_externally_indexed(self._retriever) else self._dataset.corpus[:n_documents]
            )
            self._retriever.index(corpus)
            queries = self.queries[:_WARMUP_QUERIES]
            n_alone = min(_WARMUP_SINGLE_QUERIES, len(queries))
            for batch in (queries, *(queries[row : row + 1] for row in range(n_alone))):
                if self._candidates is None:
                    self._retriever.search(batch, min(self._depth, n_documents))
                else:
                    docs = np.arange(min(self._candidates.shape[1], len(corpus)), dtype=np.int32)
                    score_candidates(self._retriever, batch, corpus.ids, np.tile(docs, (len(batch), 1)))


def is_externally_indexed(retriever: Retriever) -> bool:
    """Return True if a retriever searches an index that exists already."""
    return isinstance(retriever, ExternallyIndexed) and retriever.is_externally_indexed


class BatchSearches(NamedTuple):
    """Results of searching all queries in one batch, repeatedly."""

    run: Run
    phases: list[Phase]
    recorder: instrument.Recorder
    """Of the last repeat."""
    recall_of_exact: dict[str, RecallOfExact]
    references: list[KernelTimes]
    """Times of the reference kernels after each repeat; several short repeats share a sample. Empty if not timed."""


def search_all(runner: QueryRunner, plan: TimingPlan, timed: bool) -> BatchSearches:
    """Search all queries of `runner` as often as the `plan` says; time the reference kernels in between if `timed`."""
    phases: list[Phase] = []
    references: list[KernelTimes] = []
    search = runner.prepare()
    while _needs_repeat(phases, plan):
        with instrument.recording() as recorder:
            run = search()
        phases.append(recorder.phase())
        unsampled = phases[len(references) :]
        is_last = not _needs_repeat(phases, plan)
        if timed and (is_last or sum(phase.wall_s for phase in unsampled) >= _REFERENCE_INTERVAL_S):
            references += [machine.reference_kernels()] * len(unsampled)
    with instrument.listening(None):
        recalls = {
            name: RecallOfExact(k=k, recall=measure_recall()) for name, (k, measure_recall) in recorder.deferred.items()
        }
    return BatchSearches(run, phases, recorder, recalls, references)


def _needs_repeat(searches: Sequence[Phase], plan: TimingPlan) -> bool:
    """Return True if the plan requires another search after the given ones."""
    spent = sum(search.wall_s for search in searches)
    if len(searches) < plan.repeats:
        return spent < plan.max_search_s
    return spent < min(plan.min_search_s, plan.max_search_s) and len(searches) < _MAX_REPEATS


class SingleSearches(NamedTuple):
    """Results of searching queries one at a time."""

    latencies_s: list[float]
    run_delay_s: float | None
    """Seconds in which the searches were ready to run but waited for a processor; None if unknown."""
    counters: dict[str, Counters]
    """Price of the searches at a provider, by component."""


def search_one_by_one(
    runner: QueryRunner, plan: TimingPlan, seed: int, clock: Callable[[], float] = time.perf_counter
) -> SingleSearches:
    """Search queries one at a time, in an order drawn by the seed, as often as the plan says.

    Args:
        runner: Runs the queries.
        plan: The timing plan. Unless it has no warm-up, one search comes before those that are timed.
        seed: Seed of the order.
        clock: Clock that limits the number of searches.
    """
    rows = np.random.default_rng(seed).permutation(len(runner.queries)).tolist()
    latencies: list[float] = []
    delays: list[float | None] = []
    price: Counter[str] = Counter()
    with instrument.listening(None):
        if plan.warmup_documents and plan.latency_queries and rows:
            runner.prepare(rows[0])()
        for row in _rows_to_search(rows, plan, clock):
            search = runner.prepare(row)
            with instrument.recording(metadata=False) as recorder:
                search()
            latencies.append(recorder.phase().wall_s)
            delays.append(recorder.run_delay_s)
            price.update(
                {name: counts["micro_usd"] for name, counts in recorder.counters.items() if "micro_usd" in counts}
            )
    known = [delay for delay in delays if delay is not None]
    counters = {name: Counters(micro_usd=total) for name, total in price.items()}
    return SingleSearches(latencies, sum(known) if len(known) == len(delays) else None, counters)


def _rows_to_search(rows: Sequence[int], plan: TimingPlan, clock: Callable[[], float]) -> Iterator[int]:
    """Yield the rows of the queries to search alone.

    First each query once, until `latency_s` seconds have passed and `latency_queries` are reached. If all queries were
    searched before, they are searched again, until the seconds have passed or there are enough samples for every
    percentile, which is limited to three times `latency_queries`.
    """
    if not plan.latency_queries:
        return
    end = clock() + plan.latency_s
    for n, row in enumerate(rows):
        if n >= plan.latency_queries and clock() >= end:
            return
        yield row
    enough = max(plan.latency_queries, min(_ENOUGH_SINGLE, 3 * plan.latency_queries))
    for n in range(len(rows), enough if rows else 0):
        if clock() >= end:
            return
        yield rows[n % len(rows)]
