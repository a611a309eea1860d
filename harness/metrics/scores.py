"""Per-query scores of a Run against Qrels, as trec_eval defines them.

Definitions: trec_eval 9.0.8's ndcg_cut, map_cut, recall, P, Rprec, recip_rank and success; judged@k, err@k and the
exponential gain as in ir_measures; recall_cap@k as in BEIR; rbp as in cwl_eval. Every query with a document of a grade
above 0 has a score; a query without hits scores 0, and so does one without a document of the metric's relevance level.
Grades below 0 gain nothing, and the ideal ranking has every judged document.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.metrics import external
from harness.metrics.names import MEASURES, Metric
from harness.types import Qrels, Run, StringColumn

Array = NDArray[np.float64]
_MAX_ERR_GRADE = 4
"""Highest grade of the expected reciprocal rank, as in TREC's gdeval and ir_measures."""
_MAX_EXPONENT = 1000
"""Highest grade with an exponential gain; the gain of higher ones is not a finite number."""


@dataclass(frozen=True)
class JudgedRun:
    """The judgements of a run's documents: one row for each query, one column for each rank."""

    grades: NDArray[np.int32]
    """[queries, depth] Grade of the document at each rank; 0 where it is unjudged or there is none."""
    judged: NDArray[np.bool_]
    """[queries, depth] True where that document has a judgement of any grade."""
    hits: NDArray[np.int64]
    """[queries] Number of documents that the run returned."""
    ideal: list[NDArray[np.int32]]
    """Positive grades of each query, highest first."""

    def n_relevant(self, metric: Metric) -> Array:
        """Return the number of relevant documents R [queries]; 1 instead of 0, so that it can divide."""
        level = metric.parameter("rel")
        counts = map(len, self.ideal) if level == 1 else (np.count_nonzero(grades >= level) for grades in self.ideal)
        return np.maximum(np.array([*counts], np.float64), 1.0)

    def is_relevant(self, metric: Metric) -> NDArray[np.bool_]:
        """Return True where the document at a rank up to the cutoff is relevant [queries, min(k, depth)]."""
        return np.asarray(self.grades[:, : metric.k] >= metric.parameter("rel"))

    def cutoff(self, metric: Metric) -> int:
        """Return the metric's cutoff, or the depth of the run if it has none."""
        return self.grades.shape[1] if metric.k is None else metric.k


def _discounts(n: int) -> Array:
    return 1.0 / np.log2(np.arange(2, n + 2))


def _ndcg(run: JudgedRun, metric: Metric) -> Array:
    exponential = metric.parameter("dcg") == "exp-log2"
    gains = np.maximum(run.grades[:, : metric.k], 0).astype(np.float64)
    ideal_gains = [grades[: metric.k] for grades in run.ideal]
    if exponential:
        gains, ideal_gains = np.exp2(gains) - 1, [np.exp2(grades) - 1 for grades in ideal_gains]
    ideal = [float(grades @ _discounts(len(grades))) for grades in ideal_gains]
    achieved: Array = gains @ _discounts(gains.shape[1])
    return np.asarray(achieved / np.array(ideal, np.float64))


def _map(run: JudgedRun, metric: Metric) -> Array:
    relevant = run.is_relevant(metric)
    precision = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    return np.asarray((precision * relevant).sum(axis=1) / run.n_relevant(metric))


def _recall(run: JudgedRun, metric: Metric) -> Array:
    return np.asarray(run.is_relevant(metric).sum(axis=1) / run.n_relevant(metric))


def _recall_cap(run: JudgedRun, metric: Metric) -> Array:
    return np.asarray(run.is_relevant(metric).sum(axis=1) / np.minimum(run.n_relevant(metric), run.cutoff(metric)))


def _precision(run: JudgedRun, metric: Metric) -> Array:
    return np.asarray(run.is_relevant(metric).sum(axis=1) / run.cutoff(metric))


def _mrr(run: JudgedRun, metric: Metric) -> Array:
    relevant = run.is_relevant(metric)
    if not relevant.shape[1]:
        return np.zeros(len(relevant))
    return np.asarray(np.where(relevant.any(axis=1), 1.0 / (relevant.argmax(axis=1) + 1), 0.0))


def _hit(run: JudgedRun, metric: Metric) -> Array:
    return np.asarray(run.is_relevant(metric).any(axis=1), np.float64)


def _judged(run: JudgedRun, metric: Metric) -> Array:
    scored = np.maximum(np.minimum(run.hits, run.cutoff(metric)), 1)
    return np.asarray(run.judged[:, : metric.k].sum(axis=1) / scored)


def _rprec(run: JudgedRun, metric: Metric) -> Array:
    n_relevant = run.n_relevant(metric)
    is_within_r = np.arange(run.grades.shape[1]) < n_relevant[:, None]
    return np.asarray((run.is_relevant(metric) & is_within_r).sum(axis=1) / n_relevant)


def _err(run: JudgedRun, metric: Metric) -> Array:
    """Return the expected reciprocal rank: a user stops at a document with the probability (2^grade - 1) / 2^4."""
    stops = (np.exp2(np.maximum(run.grades[:, : metric.k], 0)) - 1) / 2**_MAX_ERR_GRADE
    continues = np.cumprod(1 - stops, axis=1)
    reaches = np.concatenate([np.ones((len(stops), 1)), continues], axis=1)[:, :-1]
    return np.asarray((reaches * stops / np.arange(1, stops.shape[1] + 1)).sum(axis=1))


def _rbp(run: JudgedRun, metric: Metric) -> Array:
    """Return the rank-biased precision: a user goes on to the next document with the probability p."""
    relevant, p = run.is_relevant(metric), metric.parameter("p")
    return np.asarray((1 - p) * (relevant @ p ** np.arange(relevant.shape[1], dtype=np.float64)))


_KERNELS: dict[str, Callable[[JudgedRun, Metric], Array]] = {
    "ndcg": _ndcg,
    "map": _map,
    "recall": _recall,
    "precision": _precision,
    "mrr": _mrr,
    "hit": _hit,
    "judged": _judged,
    "recall_cap": _recall_cap,
    "err": _err,
    "rbp": _rbp,
    "rprec": _rprec,
}


def score(run: Run, qrels: Qrels, metrics: Sequence[Metric]) -> tuple[list[str], dict[str, Array]]:
    """Score every query with a relevant document.

    Args:
        run: Ranked documents; queries without relevant documents are ignored.
        qrels: Relevance judgements.
        metrics: Metrics, as `parse` returns them.

    Returns:
        Query ids in the order of the qrels, and their scores [queries] by the metric's name.

    Raises:
        ConfigError: As `check`.
        RunError: ir_measures cannot compute a metric for this run.
    """
    check(metrics, qrels)
    queries = qrels.queries_with_relevant()
    computed_here = [metric for metric in metrics if _has_kernel(metric)]
    deepest = max((metric.k for metric in computed_here if metric.k is not None), default=0)
    needs_all = any(metric.k is None for metric in computed_here)
    scores: dict[str, Array] = {}
    if computed_here:
        judged = _judge(run if needs_all else run.top(deepest), qrels, queries)
        scores = {str(metric): _KERNELS[metric.name](judged, metric) for metric in computed_here}
    if len(computed_here) < len(metrics):
        remaining = [metric for metric in metrics if not _has_kernel(metric)]
        scores |= external.score(run, qrels, queries, remaining)
    return queries, {str(metric): scores[str(metric)] for metric in metrics}


def check(metrics: Sequence[Metric], qrels: Qrels) -> None:
    """Raise `ConfigError` for one of the `metrics` that is not defined for the highest grade of `qrels`."""
    limits = {metric: limit for metric in metrics if (limit := _highest_grade(metric)) is not None}
    highest = max((grade for grades in qrels.values() for grade in grades.values()), default=0) if limits else 0
    for metric, limit in limits.items():
        if highest > limit:
            raise ConfigError(f"{metric} takes grades up to {limit}, and the qrels have {highest}; choose ndcg@10")


def _highest_grade(metric: Metric) -> int | None:
    if metric.name == "err":
        return _MAX_ERR_GRADE
    return _MAX_EXPONENT if metric.name == "ndcg" and metric.parameter("dcg") == "exp-log2" else None


def _has_kernel(metric: Metric) -> bool:
    """Return True if the harness computes the metric itself."""
    rules = MEASURES.get(metric.name)
    return rules is not None and {key for key, _ in metric.parameters} <= {*rules.parameters}


def _judge(run: Run, qrels: Qrels, queries: Sequence[str]) -> JudgedRun:
    """Look up the grade of every ranked document of `queries`."""
    numbers, grades, starts = _number_judgements(run, qrels, queries)
    rows = {query: row for row, query in enumerate(run.query_ids)}
    run_grades = np.zeros((len(queries), run.depth), np.int32)
    judged = np.zeros(run_grades.shape, bool)
    hits = np.zeros(len(queries), np.int64)
    # one slot for each document and one more, which -1 (no hit) and unknown documents share
    grade_of = np.zeros(len(run.doc_ids) + 1, np.int32)
    is_judged = np.zeros(len(run.doc_ids) + 1, bool)
    ideal = []
    for i, query in enumerate(queries):
        judgements = slice(starts[i], starts[i + 1])
        positive = grades[judgements][grades[judgements] > 0]
        ideal.append(np.sort(positive)[::-1])
        if query not in rows:
            continue
        docs = run.docs[rows[query]]
        known = numbers[judgements]
        grade_of[known], is_judged[known] = grades[judgements], True
        grade_of[-1], is_judged[-1] = 0, False
        run_grades[i], judged[i] = grade_of[docs], is_judged[docs]
        hits[i] = np.count_nonzero(docs >= 0)
        grade_of[known], is_judged[known] = 0, False
    return JudgedRun(run_grades, judged, hits, ideal)


class _Judgements(NamedTuple):
    """The judgements of several queries, one query after the other."""

    docs: NDArray[np.int64]
    """Index of each judged document in the run; -1 where the run does not have it."""
    grades: NDArray[np.int32]
    starts: NDArray[np.int64]
    """[queries + 1] Position of each query's first judgement."""


def _number_judgements(run: Run, qrels: Qrels, queries: Sequence[str]) -> _Judgements:
    """Return the judgements of `queries` with their documents' indices in the run."""
    docs = pa.array([doc for query in queries for doc in qrels[query]], pa.large_string())
    grades = np.array([grade for query in queries for grade in qrels[query].values()], np.int32)
    starts = np.cumsum([0, *(len(qrels[query]) for query in queries)])
    doc_ids = run.doc_ids.arrow if isinstance(run.doc_ids, StringColumn) else pa.array(run.doc_ids, pa.large_string())
    numbers = pc.fill_null(pc.index_in(docs, value_set=_to_one_chunk(doc_ids)), -1)
    return _Judgements(numbers.to_numpy(zero_copy_only=False).astype(np.int64), grades, starts)


def _to_one_chunk(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
