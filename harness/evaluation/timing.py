"""Measures one cell: one retriever on one dataset. The only place that looks at a clock.

measured = measure(retriever, dataset, k=100, metrics=["ndcg@10"], plan=TimingPlan())
"""

import gc
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from harness import instrument
from harness.embedding_cache import cache
from harness.environment import limited_threads
from harness.errors import ConfigError
from harness.metrics import METRIC_VERSION, Metric, parse, score
from harness.retrievers.scored import check_scores, scored, untimed
from harness.types import Dataset, Phase, Queries, Retriever, Run, Timing
from harness.weights import tree_hash

_ONCE: dict[str, float] = {"warmup_documents": 0, "repeats": 1, "least_s": 0.0, "latency_queries": 0}
_MOST = 50
"""Repeats of a search, however short it is."""


class TimingPlan(BaseModel):
    """How a cell is timed: the `timing` group of the config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warmup_documents: int = Field(64, ge=0)
    """Documents indexed before the clock counts; 0 leaves loading and compiling inside the figures."""
    repeats: int = Field(3, ge=1)
    """How often all queries are searched."""
    least_s: float = Field(0.0, ge=0)
    """Seconds of searching before which repeats go on, up to fifty: what is over in milliseconds is timed often."""
    enough_s: float = Field(30.0, gt=0)
    """Seconds of searching after which no further repeat begins."""
    latency_queries: int = Field(100, ge=0)
    """Queries, drawn by the seed, that are searched one at a time."""
    threads: int | None = Field(None, ge=1)
    """Threads for BLAS, torch and our kernels; None takes every core."""
    isolate: bool = False
    """Measure in a process of its own, whose peak memory is the cell's."""


@dataclass(frozen=True)
class Measured:
    """What a cell gave."""

    run: Run
    query_ids: list[str]
    """Answerable queries, the rows of `scores`."""
    scores: dict[str, NDArray[np.float64]]
    """Per-query values [queries] by metric name."""
    timing: Timing | None
    """None where the retriever brings a run that was made elsewhere."""
    facts: dict[str, Any]
    own: dict[str, float] = field(default_factory=dict)
    """Measures that the collection defines itself, which have no values by query."""

    @property
    def means(self) -> dict[str, float]:
        """The mean of each metric over all answerable queries, and the collection's own measures."""
        return {**{name: float(values.mean()) for name, values in self.scores.items()}, **self.own}


def measure(
    retriever: Retriever,
    dataset: Dataset,
    *,
    k: int,
    metrics: Sequence[str],
    plan: TimingPlan,
    seed: int = 0,
) -> Measured:
    """Index the corpus, search every query, score the answers; every timed sample is kept.

    Where the dataset has candidates, the retriever scores those of each query instead. A retriever that is `untimed`
    brings rankings that were made elsewhere: seconds spent on reading them are not its cost, and none are kept.
    """
    wanted = parse_metrics(metrics, k)
    elsewhere = untimed(retriever)
    plan = plan.model_copy(update=_ONCE) if elsewhere else plan
    ask = _Asking(retriever, dataset, k + 1 if dataset.drop_self_hits else k)
    with limited_threads(plan.threads) as threads:
        with instrument.recording() as warmup:
            ask.first(plan.warmup_documents)
        gc.collect()
        references = [instrument.reference_kernels()]
        with instrument.recording() as indexing:
            retriever.index(dataset.corpus)
        references.append(instrument.reference_kernels())
        run, searches, facts = _search_all(ask, plan, references)
        latencies, paid = _one_by_one(ask, plan.latency_queries, seed)
        timing = Timing(
            warmup=warmup.phase(),
            index=indexing.phase(),
            searches=searches,
            latencies_s=latencies,
            documents=len(dataset.corpus),
            queries=len(dataset.queries),
            index_bytes=retriever.nbytes(),
            threads=threads,
            references=references,
        )
    whole = without_self_hits(run) if dataset.drop_self_hits else run
    run = whole.top(k)
    query_ids, scores = score(run, dataset.qrels, wanted)
    said = {**warmup.facts, **indexing.facts, **facts, **paid}
    own = dict(dataset.own_scores(whole)) if dataset.own_scores else {}
    return Measured(run, query_ids, scores, None if elsewhere else timing, said, own)


def parse_metrics(names: Sequence[str], k: int) -> list[Metric]:
    """The metrics by name. Raises `ConfigError` for one that looks deeper than the k documents that are searched."""
    if not names:
        raise ConfigError("metrics is empty; name at least one, such as metrics=[ndcg@10]")
    wanted = [parse(name) for name in names]
    for metric in wanted:
        if metric.k is not None and metric.k > k:
            raise ConfigError(f"metric {metric} looks deeper than k={k}; set k={metric.k} or more")
    return wanted


class _Asking:
    """A retriever that is asked a dataset's queries: about the whole corpus, or about each query's candidates."""

    def __init__(self, retriever: Retriever, dataset: Dataset, depth: int) -> None:
        self._retriever, self._dataset, self._depth = retriever, dataset, depth
        self._candidates = dataset.to_rank
        if self._candidates is not None:
            check_scores(retriever)

    @property
    def queries(self) -> Queries:
        """All that can be asked."""
        return self._dataset.queries

    def about(self, row: int | None = None) -> Callable[[], Run]:
        """What asks one query, or all: what it takes to ask is made ready now, and is on no clock."""
        rows = slice(None) if row is None else slice(row, row + 1)
        queries = self.queries if row is None else self.queries[rows]
        if self._candidates is None:
            return partial(self._retriever.search, queries, self._depth)
        return partial(scored, self._retriever, queries, self._dataset.corpus.ids, self._candidates[rows])

    def first(self, documents: int) -> None:
        """Index and search a little before the clock counts."""
        if not documents:
            return
        with instrument.listening(None), cache.using("off"):
            corpus, queries = self._dataset.corpus[:documents], self.queries[:8]
            self._retriever.index(corpus)
            if self._candidates is None:
                self._retriever.search(queries, min(self._depth, documents))
            else:
                some = np.arange(min(self._candidates.shape[1], len(corpus)), dtype=np.int32)
                scored(self._retriever, queries, corpus.ids, np.tile(some, (len(queries), 1)))


def _search_all(
    ask: _Asking, plan: TimingPlan, references: list[dict[str, float]]
) -> tuple[Run, list[Phase], dict[str, Any]]:
    """The run, what each repeat cost and the facts; the reference kernels' seconds are added after each."""
    searches: list[Phase] = []
    whole = ask.about()
    while _goes_on(searches, plan):
        with instrument.recording() as searching:
            run = whole()
        searches.append(searching.phase())
        references.append(instrument.reference_kernels())
    with instrument.listening(None):
        found = {name: find() for name, find in searching.later.items()}
    return run, searches, {**searching.facts, **found}


def _goes_on(searches: Sequence[Phase], plan: TimingPlan) -> bool:
    spent = sum(search.wall_s for search in searches)
    if len(searches) < plan.repeats:
        return spent < plan.enough_s
    return spent < plan.least_s and len(searches) < _MOST


def _one_by_one(ask: _Asking, n: int, seed: int) -> tuple[list[float], dict[str, int]]:
    """Seconds of each of n queries alone, and what they cost where a provider was paid."""
    chosen = np.random.default_rng(seed).permutation(len(ask.queries))[:n]
    latencies: list[float] = []
    paid: Counter[str] = Counter()
    with instrument.listening(None):
        for row in chosen.tolist():
            alone = ask.about(row)
            with instrument.recording() as searching:
                alone()
            latencies.append(searching.wall_s)
            paid.update({name: n for name, n in searching.counts.items() if name.rpartition(".")[2] == "micro_usd"})
    return latencies, {f"latency.{name}": total for name, total in paid.items()}


def without_self_hits(run: Run) -> Run:
    """The run without the hit, if any, whose document has the query's own id."""
    ids = pa.array(run.doc_ids.arrow.combine_chunks() if hasattr(run.doc_ids, "arrow") else list(run.doc_ids))
    own = pc.fill_null(pc.index_in(pa.array(run.query_ids, pa.large_string()), value_set=ids), -2)
    keep = run.docs != own.to_numpy(zero_copy_only=False)[:, None]
    return Run(run.query_ids, run.doc_ids, np.where(keep, run.docs, -1), run.scores)


def cell_key(
    retriever: Mapping[str, Any], plan: TimingPlan, dataset: str, k: int, metric_names: Sequence[str], seed: int
) -> str:
    """Hash of what makes a cell what it is, 16 hex digits; `dataset` is its fingerprint.

    A model, path, file or folder that lies on this disk counts with its content, so that weights trained anew under the
    same path are another cell.
    """
    identity = {
        "retriever": _with_content(retriever),
        "timing": plan.model_dump(),
        "dataset": dataset,
        "k": k,
        "metrics": [str(parse(name)) for name in metric_names],
        "metric_version": METRIC_VERSION,
        "seed": seed,
    }
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8).hexdigest()


def _with_content(value: Any, key: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _with_content(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_content(inner) for inner in value]
    if isinstance(value, str) and key.rpartition("_")[2] in ("model", "path", "file", "folder", "dir"):
        path = Path(os.path.expanduser(value))  # noqa: PTH111  # leaves a user whom nobody knows
        if value and path.is_dir():
            return {"content": tree_hash(path)}
        if path.is_file():
            return {"content": hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()}
    return value
