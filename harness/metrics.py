"""Per-query scores of a Run against Qrels, as trec_eval defines them: `score(run, qrels, [parse("ndcg@10")])`.

Definitions: trec_eval 9.0.8's ndcg_cut, map_cut, recall, P, Rprec, recip_rank and success; judged@k as in ir_measures.
A grade above 0 is relevant. Gains are linear, grades below 0 gain nothing, and the ideal ranking has every judged
document. Every query with a relevant document has a score; a query without hits scores 0.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.types import Qrels, Run, StringColumn

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A metric and its cutoff; `str(metric)` is the name that `parse` reads."""

    name: str
    k: int | None = None

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"


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

    @property
    def n_relevant(self) -> Array:
        """Number of relevant documents R [queries]."""
        return np.array([len(grades) for grades in self.ideal], np.float64)

    def is_relevant(self, k: int) -> NDArray[np.bool_]:
        """Return True where the document at a rank is relevant [queries, min(k, depth)]."""
        return self.grades[:, :k] > 0


def _discounts(n: int) -> Array:
    return 1.0 / np.log2(np.arange(2, n + 2))


def _ndcg(run: JudgedRun, k: int) -> Array:
    gains = np.maximum(run.grades[:, :k], 0).astype(np.float64)
    ideal = [float(grades[:k] @ _discounts(min(k, len(grades)))) for grades in run.ideal]
    achieved: Array = gains @ _discounts(gains.shape[1])
    return np.asarray(achieved / np.array(ideal, np.float64))


def _map(run: JudgedRun, k: int) -> Array:
    relevant = run.is_relevant(k)
    precision = np.cumsum(relevant, axis=1) / np.arange(1, relevant.shape[1] + 1)
    return np.asarray((precision * relevant).sum(axis=1) / run.n_relevant)


def _recall(run: JudgedRun, k: int) -> Array:
    return np.asarray(run.is_relevant(k).sum(axis=1) / run.n_relevant)


def _precision(run: JudgedRun, k: int) -> Array:
    return np.asarray(run.is_relevant(k).sum(axis=1) / k)


def _mrr(run: JudgedRun, k: int) -> Array:
    relevant = run.is_relevant(k)
    if not relevant.shape[1]:
        return np.zeros(len(relevant))
    return np.asarray(np.where(relevant.any(axis=1), 1.0 / (relevant.argmax(axis=1) + 1), 0.0))


def _hit(run: JudgedRun, k: int) -> Array:
    return np.asarray(run.is_relevant(k).any(axis=1), np.float64)


def _judged(run: JudgedRun, k: int) -> Array:
    return np.asarray(run.judged[:, :k].sum(axis=1) / np.maximum(np.minimum(run.hits, k), 1))


def _rprec(run: JudgedRun, _: int) -> Array:
    is_within_r = np.arange(run.grades.shape[1]) < run.n_relevant[:, None]
    return np.asarray(((run.grades > 0) & is_within_r).sum(axis=1) / run.n_relevant)


_AT_K: dict[str, Callable[[JudgedRun, int], Array]] = {
    "ndcg": _ndcg,
    "map": _map,
    "recall": _recall,
    "precision": _precision,
    "mrr": _mrr,
    "hit": _hit,
    "judged": _judged,
}
_WITHOUT_CUTOFF: dict[str, Callable[[JudgedRun, int], Array]] = {"rprec": _rprec}
NAMES = [*(f"{name}@k" for name in _AT_K), *_WITHOUT_CUTOFF]


def parse(text: str) -> Metric:
    """Read a name such as `ndcg@10` or `rprec`. Raises `ConfigError` naming the choices."""
    match = re.fullmatch(r"([a-z]+)(?:@(\d+))?", text.strip().lower())
    name, k = match.groups() if match else (text, None)
    if name not in _AT_K and name not in _WITHOUT_CUTOFF:
        near = difflib.get_close_matches(name.split("@")[0], [*_AT_K, *_WITHOUT_CUTOFF], n=1)
        hint = f"; did you mean {near[0]}{'@10' if near[0] in _AT_K else ''}?" if near else ""
        raise ConfigError(f"unknown metric {text!r}; choices: {', '.join(NAMES)}{hint}")
    if name in _AT_K and (k is None or int(k) < 1):
        raise ConfigError(f"metric {text!r} needs a cutoff of at least 1, such as {name}@10")
    if name in _WITHOUT_CUTOFF and k is not None:
        raise ConfigError(f"metric {text!r} takes no cutoff: write {name}")
    return Metric(name, None if k is None else int(k))


def score(run: Run, qrels: Qrels, metrics: Sequence[Metric]) -> tuple[list[str], dict[str, Array]]:
    """Score every query with a relevant document.

    Args:
        run: Ranked documents; queries without relevant documents are ignored.
        qrels: Relevance judgements.
        metrics: Metrics, as `parse` returns them.

    Returns:
        Query ids in the order of the qrels, and their scores [queries] by the metric's name.
    """
    queries = qrels.queries_with_relevant()
    deepest = max((metric.k for metric in metrics if metric.k is not None), default=0)
    needs_all = any(metric.k is None for metric in metrics)
    judged = _judge(run if needs_all else run.top(deepest), qrels, queries)
    return queries, {str(m): (_AT_K | _WITHOUT_CUTOFF)[m.name](judged, m.k or 0) for m in metrics}


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
