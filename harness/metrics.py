"""Per-query scores of a Run against Qrels, as trec_eval defines them: `score(run, qrels, [parse("ndcg@10")])`.

Definitions: trec_eval 9.0.8's ndcg_cut, map_cut, recall, P, Rprec, recip_rank and success; judged@k as in ir_measures.
A grade above 0 is relevant. Gains are linear, grades below 0 gain nothing, and the ideal ranking has every judged
document. Every query with a relevant document has a score; one that the run does not answer scores 0.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.types import Qrels, Run, StringColumn

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A measure and its cutoff; `str` gives the name that `parse` reads."""

    name: str
    k: int | None = None

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"


@dataclass(frozen=True)
class Judged:
    """A run seen through judgements: one row for each answerable query, one column for each rank."""

    grades: NDArray[np.int32]
    """[queries, depth] grade of the document at each rank; 0 where it is not judged or there is none."""
    judged: NDArray[np.bool_]
    """[queries, depth] whether that document has a judgement of any grade."""
    hits: NDArray[np.int64]
    """[queries] how many documents the run returned."""
    ideal: list[NDArray[np.int32]]
    """Positive grades of each query, highest first."""

    @property
    def relevant(self) -> Array:
        """[queries] how many documents are relevant: R."""
        return np.array([len(grades) for grades in self.ideal], np.float64)

    def found(self, k: int) -> NDArray[np.bool_]:
        """[queries, min(k, depth)] whether the document at each rank is relevant."""
        return self.grades[:, :k] > 0


def _discounts(n: int) -> Array:
    return 1.0 / np.log2(np.arange(2, n + 2))


def _ndcg(seen: Judged, k: int) -> Array:
    gains = np.maximum(seen.grades[:, :k], 0).astype(np.float64)
    ideal = [float(grades[:k] @ _discounts(min(k, len(grades)))) for grades in seen.ideal]
    achieved: Array = gains @ _discounts(gains.shape[1])
    return np.asarray(achieved / np.array(ideal, np.float64))


def _map(seen: Judged, k: int) -> Array:
    found = seen.found(k)
    precision = np.cumsum(found, axis=1) / np.arange(1, found.shape[1] + 1)
    return np.asarray((precision * found).sum(axis=1) / seen.relevant)


def _recall(seen: Judged, k: int) -> Array:
    return np.asarray(seen.found(k).sum(axis=1) / seen.relevant)


def _precision(seen: Judged, k: int) -> Array:
    return np.asarray(seen.found(k).sum(axis=1) / k)


def _mrr(seen: Judged, k: int) -> Array:
    found = seen.found(k)
    if not found.shape[1]:
        return np.zeros(len(found))
    return np.asarray(np.where(found.any(axis=1), 1.0 / (found.argmax(axis=1) + 1), 0.0))


def _hit(seen: Judged, k: int) -> Array:
    return np.asarray(seen.found(k).any(axis=1), np.float64)


def _judged(seen: Judged, k: int) -> Array:
    return np.asarray(seen.judged[:, :k].sum(axis=1) / np.maximum(np.minimum(seen.hits, k), 1))


def _rprec(seen: Judged, _: int) -> Array:
    within = np.arange(seen.grades.shape[1]) < seen.relevant[:, None]
    return np.asarray(((seen.grades > 0) & within).sum(axis=1) / seen.relevant)


_AT_K: dict[str, Callable[[Judged, int], Array]] = {
    "ndcg": _ndcg,
    "map": _map,
    "recall": _recall,
    "precision": _precision,
    "mrr": _mrr,
    "hit": _hit,
    "judged": _judged,
}
_WHOLE: dict[str, Callable[[Judged, int], Array]] = {"rprec": _rprec}
NAMES = [*(f"{name}@k" for name in _AT_K), *_WHOLE]


def parse(text: str) -> Metric:
    """Read a name such as `ndcg@10` or `rprec`. Raises `ConfigError` naming the choices."""
    match = re.fullmatch(r"([a-z]+)(?:@(\d+))?", text.strip().lower())
    name, k = match.groups() if match else (text, None)
    if name not in _AT_K and name not in _WHOLE:
        near = difflib.get_close_matches(name.split("@")[0], [*_AT_K, *_WHOLE], n=1)
        hint = f"; did you mean {near[0]}{'@10' if near[0] in _AT_K else ''}?" if near else ""
        raise ConfigError(f"unknown metric {text!r}; choices: {', '.join(NAMES)}{hint}")
    if name in _AT_K and (k is None or int(k) < 1):
        raise ConfigError(f"metric {text!r} needs a cutoff of at least 1, such as {name}@10")
    if name in _WHOLE and k is not None:
        raise ConfigError(f"metric {text!r} takes no cutoff: write {name}")
    return Metric(name, None if k is None else int(k))


def score(run: Run, qrels: Qrels, metrics: Sequence[Metric]) -> tuple[list[str], dict[str, Array]]:
    """The answerable queries' ids, in the qrels' order, and for each metric's name their scores [queries]."""
    queries = qrels.queries_with_relevant()
    deepest = max((metric.k for metric in metrics if metric.k is not None), default=0)
    whole = any(metric.k is None for metric in metrics)
    seen = judge(run if whole else run.top(deepest), qrels, queries)
    return queries, {str(m): (_AT_K | _WHOLE)[m.name](seen, m.k or 0) for m in metrics}


def judge(run: Run, qrels: Qrels, queries: Sequence[str]) -> Judged:
    """Look up the grade of every ranked document of `queries`."""
    numbers, grades, starts = _numbered(run, qrels, queries)
    rows = {query: row for row, query in enumerate(run.query_ids)}
    found = np.zeros((len(queries), run.depth), np.int32)
    judged = np.zeros(found.shape, bool)
    hits = np.zeros(len(queries), np.int64)
    # one slot for each document and one more, which -1 (no hit) and unknown documents share
    grade_of = np.zeros(len(run.doc_ids) + 1, np.int32)
    is_judged = np.zeros(len(run.doc_ids) + 1, bool)
    ideal = []
    for i, query in enumerate(queries):
        own = slice(starts[i], starts[i + 1])
        positive = grades[own][grades[own] > 0]
        ideal.append(np.sort(positive)[::-1])
        if query not in rows:
            continue
        docs = run.docs[rows[query]]
        known = numbers[own]
        grade_of[known], is_judged[known] = grades[own], True
        grade_of[-1], is_judged[-1] = 0, False
        found[i], judged[i] = grade_of[docs], is_judged[docs]
        hits[i] = np.count_nonzero(docs >= 0)
        grade_of[known], is_judged[known] = 0, False
    return Judged(found, judged, hits, ideal)


def _numbered(
    run: Run, qrels: Qrels, queries: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Every judgement of `queries` in one row: document number in the run (-1: not there), grade; and where each
    query's own begin.
    """
    docs = pa.array([doc for query in queries for doc in qrels[query]], pa.large_string())
    grades = np.array([grade for query in queries for grade in qrels[query].values()], np.int32)
    starts = np.cumsum([0, *(len(qrels[query]) for query in queries)])
    known = run.doc_ids.arrow if isinstance(run.doc_ids, StringColumn) else pa.array(run.doc_ids, pa.large_string())
    numbers = pc.fill_null(pc.index_in(docs, value_set=_one_chunk(known)), -1)
    return numbers.to_numpy(zero_copy_only=False).astype(np.int64), grades, starts


def _one_chunk(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
