"""Hybrid retrieval: the rankings of several retrievers, fused into one."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.instrument import component, stage
from harness.retrievers.explained import explain_parts, rank_and_score
from harness.retrievers.scored import align_scores, score_candidates, to_corpus
from harness.retrievers.state import SetByIndex
from harness.types import Corpus, Explanation, Queries, Retriever, Run, StringColumn
from harness.types.protocols import Component, Value, is_precomputed

log = logging.getLogger(__name__)

Fusion = Callable[[Sequence[Run]], Run]


class Hybrid(Component):
    """Several retrievers whose rankings are fused into one.

    Args:
        retrievers: The retrievers by name.
        fusion: Fuses their runs; by default reciprocal rank fusion with the constant 60.
        depth: Documents taken from each retriever.
    """

    _doc_ids = SetByIndex[StringColumn]()

    def __init__(self, retrievers: Mapping[str, Retriever], fusion: Fusion | None = None, depth: int = 100) -> None:
        if not retrievers:
            raise ConfigError(
                "a hybrid needs at least one retriever, such as retriever@retriever.retrievers.lexical=bm25"
            )
        if depth < 1:
            raise ConfigError(f"retriever.depth={depth} must be at least 1")
        fusion = fusion or partial(rrf, constant=60, weights=None)
        self.complete(fusion=fusion)
        self._retrievers, self._fusion, self._depth = dict(retrievers), fusion, depth
        empty_run = Run([], [], np.empty((0, depth), np.int32), np.empty((0, depth), np.float32))
        fusion([empty_run] * len(retrievers))  # rejects invalid settings now, before hours of indexing
        self._warned = False

    @property
    def is_precomputed(self) -> bool:
        """True if any of the retrievers is precomputed, so that its timings are unknown."""
        return any(map(is_precomputed, self._retrievers.values()))

    def index(self, corpus: Corpus) -> None:
        """Index the corpus with every retriever."""
        self._doc_ids = corpus.ids
        for name, retriever in self._retrievers.items():
            with component(name):
                retriever.index(corpus)

    def search(self, queries: Queries, k: int) -> Run:
        """Return the `k` best fused hits of each of the `queries`; at most `depth` hits of each retriever are fused."""
        if k > self._depth + 1 and not self._warned:  # k is one higher than configured if self hits are dropped
            self._warned = True
            log.warning("retriever.depth=%d is less than k=%d: recall beyond it is not measured", self._depth, k)
        depth = max(k, self._depth) if k <= self._depth + 1 else self._depth
        runs, doc_ids = [], self._doc_ids
        for name, retriever in self._retrievers.items():
            with component(name):
                runs.append(to_corpus(retriever.search(queries, depth), queries.ids, doc_ids))
        with stage("fuse"):
            return self._fusion(runs).top(k)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return scores of `docs` [queries, candidates] for `queries`, fused over all retrievers; -inf for index -1."""
        runs = []
        for name, retriever in self._retrievers.items():
            with component(name):
                runs.append(score_candidates(retriever, queries, self._doc_ids, docs))
        with stage("fuse"):
            return align_scores(self._fusion(runs), docs)

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """Explain each of `docs` by its rank and score for `query` in each retriever, and by its fused score."""
        runs = {name: retriever.search(query, self._depth) for name, retriever in self._retrievers.items()}
        fused = self._fusion(list(runs.values()))
        fused_without = {
            name: self._fusion([_without_hits(run) if part == name else run for part, run in runs.items()])
            for name in runs
        }
        inner = explain_parts(self._retrievers, query, docs)
        explanations = []
        for index, doc in enumerate(docs):
            total = rank_and_score(fused, doc)[1]
            shares = _shares(total or 0.0, {name: rank_and_score(run, doc)[1] for name, run in fused_without.items()})
            rows: list[tuple[Value, ...]] = [
                (name, *rank_and_score(run, doc), shares[name]) for name, run in runs.items()
            ]
            summary = (
                f"no retriever has it among its {self._depth} best"
                if total is None
                else f"fused score {total:.4f}; a retriever adds this score minus the score without the retriever"
            )
            columns = ("part", "rank there", "score there", "adds")
            parts = {name: explanations_of_part[index] for name, explanations_of_part in inner.items()}
            explanations.append(Explanation(summary, columns, rows, parts))
        return explanations

    def nbytes(self) -> int:
        """Return the bytes of all retrievers together."""
        return sum(retriever.nbytes() for retriever in self._retrievers.values())


def _without_hits(run: Run) -> Run:
    return Run(run.query_ids, run.doc_ids, np.full_like(run.docs, -1), run.scores)


def _shares(total: float, without: Mapping[str, float | None]) -> dict[str, float]:
    """Return each retriever's contribution to the fused score: the `total` minus the score without the retriever.

    If no other retriever has the document, the score without it is None, and its contribution is the rest of the total.
    """
    shares = {name: total - score for name, score in without.items() if score is not None}
    return {name: shares.get(name, total - sum(shares.values())) for name in without}


def rrf(runs: Sequence[Run], constant: float = 60, weights: Sequence[float] | None = None) -> Run:
    """Fuse runs by reciprocal rank fusion (Cormack et al., SIGIR 2009): the sum of weight / (constant + rank).

    Args:
        runs: Runs over the same queries and documents, in the same order.
        constant: Added to each rank, which counts from 1; at least 0.
        weights: A weight for each run; None for 1.

    Raises:
        ConfigError: The constant is negative, or the weights do not fit the runs.
    """
    if constant < 0:
        raise ConfigError(f"retriever.fusion.constant={constant} must be at least 0; the usual value is 60")
    factors = [1.0] * len(runs) if weights is None else _weights(weights, len(runs))
    return _summed(
        runs,
        [
            np.broadcast_to(factor / (constant + np.arange(1, run.depth + 1)), run.docs.shape)
            for factor, run in zip(factors, runs, strict=True)
        ],
    )


def convex(runs: Sequence[Run], normalize: str = "min_max", weights: Sequence[float] | None = None) -> Run:
    """Fuse runs by the weighted mean of normalised scores (Bruch et al., TOIS 2023).

    Scores are normalised for each query and run. A document that a run lacks has the run's floor as its score.

    Args:
        runs: Runs over the same queries and documents, in the same order.
        normalize: ``min_max``: (s - min) / (max - min), floor 0, equal scores become 1. ``z_score``: (s - mean) /
            deviation, floor the lowest score, equal scores become 0. ``dbsf`` (distribution-based score fusion,
            Mazzeschi): (s - (mean - 3 deviations)) / 6 deviations, clipped to 0..1, floor 0, equal scores become 0.5.
        weights: A weight for each run; they are scaled to sum to 1. None for equal weights.

    Raises:
        ConfigError: The normalisation is unknown, or the weights do not fit the runs.
    """
    if normalize not in _NORMALIZE:
        raise ConfigError(f"retriever.fusion.normalize={normalize!r}; choices: {', '.join(_NORMALIZE)}")
    factors = np.array(_weights([1.0] * len(runs) if weights is None else weights, len(runs)))
    shares = []
    floor = np.zeros((len(runs[0]), 1))
    for factor, run in zip(factors / factors.sum(), runs, strict=True):
        values, lowest = _NORMALIZE[normalize](run)
        shares.append(factor * (values - lowest))
        floor = floor + factor * lowest
    return _summed(runs, shares, floor)


def _weights(weights: Sequence[float], n: int) -> list[float]:
    setting = f"retriever.fusion.weights={list(weights)}"
    if len(weights) != n:
        raise ConfigError(f"{setting} has {len(weights)} numbers for {n} retrievers; give one for each, in their order")
    valid = all(isinstance(weight, int | float) and np.isfinite(weight) and weight >= 0 for weight in weights)
    if not valid or not sum(weights):
        raise ConfigError(f"{setting} must be numbers of 0 or more, and not all 0")
    return [float(weight) for weight in weights]


Normalized = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Values [queries, depth] and each query's floor [queries, 1]."""


class _Moments(NamedTuple):
    """The scores of a run, and their mean and standard deviation for each query."""

    scores: NDArray[np.float64]
    """Shape [queries, depth]; 0 without a hit."""
    hit: NDArray[np.bool_]
    """Mask of hits, shape [queries, depth]."""
    mean: NDArray[np.float64]
    """Shape [queries, 1]."""
    deviation: NDArray[np.float64]
    """Shape [queries, 1]; exactly 0 if all scores are equal."""


def _moments(run: Run) -> _Moments:
    hit = run.docs >= 0
    scores = np.where(hit, run.scores, 0.0).astype(np.float64)
    n = np.maximum(hit.sum(axis=1, keepdims=True), 1)
    mean = scores.sum(axis=1, keepdims=True) / n
    deviation = np.sqrt((np.where(hit, scores - mean, 0.0) ** 2).sum(axis=1, keepdims=True) / n)
    return _Moments(scores, hit, mean, np.where(_is_constant(run), 0.0, deviation))


def _is_constant(run: Run) -> NDArray[np.bool_]:
    """Return a mask [queries, 1] of the queries whose scores are all equal."""
    hit = run.docs >= 0
    highest = np.where(hit, run.scores, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    lowest = np.where(hit, run.scores, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    return np.asarray(highest <= lowest)


def _min_max(run: Run) -> Normalized:
    scores, hit, _, _ = _moments(run)
    low = np.where(hit, scores, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    high = np.where(hit, scores, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.where(_is_constant(run), 1.0, (scores - low) / (high - low))
    return values, np.zeros((len(run), 1))


def _z_score(run: Run) -> Normalized:
    scores, hit, mean, deviation = _moments(run)
    values = np.divide(scores - mean, deviation, out=np.zeros_like(scores), where=deviation > 0)
    lowest = np.where(hit, values, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    return values, np.where(np.isinf(lowest), 0.0, lowest)


def _dbsf(run: Run) -> Normalized:
    scores, _, mean, deviation = _moments(run)
    shifted = scores - mean + 3 * deviation
    values = np.divide(shifted, 6 * deviation, out=np.full_like(scores, 0.5), where=deviation > 0)
    return np.clip(values, 0.0, 1.0), np.zeros((len(run), 1))


_NORMALIZE: dict[str, Callable[[Run], Normalized]] = {"min_max": _min_max, "z_score": _z_score, "dbsf": _dbsf}


def _summed(
    runs: Sequence[Run], shares: Sequence[NDArray[np.float64]], floor: NDArray[np.float64] | float = 0.0
) -> Run:
    """Return the run in which a document scores the sum of its shares over all runs, plus the query's floor."""
    docs, scores = np.concatenate([run.docs for run in runs], axis=1), np.concatenate(shares, axis=1)
    order = np.argsort(docs, axis=1, kind="stable")
    docs, scores = np.take_along_axis(docs, order, axis=1), np.take_along_axis(scores, order, axis=1)
    first = np.ones(docs.shape, bool)
    first[:, 1:] = docs[:, 1:] != docs[:, :-1]
    if docs.size:
        total = np.add.reduceat(scores.ravel(), np.flatnonzero(first))
        docs, scores = np.where(first, docs, -1), np.zeros(docs.shape)
        scores[first] = total
    return Run(runs[0].query_ids, runs[0].doc_ids, docs, scores + floor)
