"""BM25 over our own postings, with Lucene's idf; `RankBM25` is the rank-bm25 package as it is, for comparison.

score(q, d) = sum over terms of idf(t) * tf / (tf + k1 * (1 - b + b * |d| / avgdl)), each term counted as often as the
query has it; idf(t) = log(1 + (N - df + .5) / (df + .5)) (Lucene's BM25Similarity, without its lossy lengths).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.environment import threads
from harness.errors import ConfigError
from harness.instrument import stage
from harness.retrievers.state import SetByIndex
from harness.search.postings import Postings, SparseRows
from harness.search.topk import empty_hits
from harness.text.tokenizer import Tokenizer
from harness.types import Corpus, Explanation, Queries, Run, StringColumn
from harness.types.protocols import Component


@dataclass(frozen=True)
class Statistics:
    """What scores take from a whole collection: its documents, its words, and the documents `df` [terms] of each term.

    The terms are in the order in which the collection first has them.
    """

    documents: int
    words: float
    terms: pa.Array
    df: NDArray[np.int64]

    def merged(self, others: Sequence[Self]) -> "Statistics":
        """Those of this part of a collection and of the parts that follow it."""
        parts = [self, *others]
        numbered = pa.concat_arrays([part.terms for part in parts]).dictionary_encode()
        df = np.zeros(len(numbered.dictionary), np.int64)
        np.add.at(df, numbered.indices.to_numpy(), np.concatenate([part.df for part in parts]))
        documents, words = sum(part.documents for part in parts), sum(part.words for part in parts)
        return Statistics(documents, words, numbered.dictionary, df)


class BM25(Component):
    """A BM25 retriever.

    Args:
        tokenizer: Splits texts into terms; by default English words with Snowball stems and Lucene's stop words.
        k1: At least 0; bounds what a repeated term adds.
        b: From 0 to 1; the degree of length normalisation.
    """

    is_shardable = True
    """Scores compare across parts of a collection, once each part is given the statistics of the whole."""
    _doc_ids = SetByIndex[StringColumn]()
    _postings = SetByIndex[Postings]()

    def __init__(self, tokenizer: Tokenizer | None = None, k1: float = 1.2, b: float = 0.75) -> None:
        _check(k1, b)
        self._tokenizer, self._k1, self._b = tokenizer or Tokenizer(), k1, b
        self.complete(tokenizer=self._tokenizer)
        self._whole: Statistics | None = None
        self._counted: tuple[Corpus, SparseRows] | None = None
        self._places: NDArray[np.int64] | None = None  # of this part's terms among those of the whole

    def corpus_statistics(self, corpus: Corpus) -> Statistics:
        """What the corpus adds to those of a larger one; its words stay counted for `index`."""
        counts = self._count(corpus)
        self._counted = corpus, counts
        words, terms = float(counts.weights.sum(dtype=np.float64)), self._terms()
        return Statistics(len(corpus), words, terms, np.bincount(counts.terms, minlength=len(terms)))

    def use_statistics(self, whole: Statistics) -> None:
        """Score what is indexed from now on as a part of the collection that these are the statistics of."""
        self._whole = whole

    def index(self, corpus: Corpus) -> None:
        """Count the words and give every posting its score."""
        counted, self._counted = self._counted, None
        counts = counted[1] if counted and counted[0] is corpus else self._count(corpus)
        with stage("build"):
            self._doc_ids, self._ranks = corpus.ids, corpus.ranks
            self._postings = Postings(self._impacts(counts), len(self._tokenizer.vocabulary))

    def _count(self, corpus: Corpus) -> SparseRows:
        with stage("encode", total=len(corpus)) as step:
            counts = self._tokenizer.fit(corpus.texts)
            step(len(corpus))
        return counts

    def _terms(self) -> pa.Array:
        return pa.array(self._tokenizer.vocabulary, pa.large_string())

    def _impacts(self, counts: SparseRows) -> SparseRows:
        df, lengths = np.zeros(len(self._tokenizer.vocabulary), np.int64), np.empty(len(counts))
        blocks = [slice(first, first + 65_536) for first in range(0, len(counts), 65_536)]  # float64 for some
        for block in blocks:
            starts = counts.starts[block.start : block.stop + 1]
            own = slice(starts[0], starts[-1])
            df += np.bincount(counts.terms[own], minlength=len(df))
            lengths[block] = np.diff(np.cumsum(np.append(0.0, counts.weights[own]))[starts - starts[0]])
        documents, words = len(counts), lengths.sum()
        if self._whole:
            self._places = pc.index_in(self._terms(), value_set=self._whole.terms).to_numpy().astype(np.int64)
            df, documents, words = self._whole.df[self._places], self._whole.documents, self._whole.words
        idf = np.log1p((documents - df + 0.5) / (df + 0.5))
        average = words / documents if words else 1.0
        penalty = self._k1 * (1 - self._b + self._b * lengths / average)
        weights = np.empty_like(counts.weights)
        for block in blocks:
            starts = counts.starts[block.start : block.stop + 1]
            own = slice(starts[0], starts[-1])
            times = counts.weights[own]
            weights[own] = idf[counts.terms[own]] * times / (times + np.repeat(penalty[block], np.diff(starts)))
        return SparseRows(counts.starts, counts.terms, weights)

    def search(self, queries: Queries, k: int) -> Run:
        """Documents that share a term with the query, best first."""
        k = min(k, len(self._doc_ids))
        with stage("encode"):
            encoded = self._ordered(self._tokenizer.transform(queries.texts))
        with stage("search"):
            docs, scores = self._postings.search(encoded, k, self._ranks, threads())
            return Run(queries.ids, self._doc_ids, docs, scores, self._ranks)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores [queries, candidates] of the documents `docs`, 0 without a shared term; -inf for none (-1)."""
        with stage("encode"):
            asked = self._ordered(self._tokenizer.transform(queries.texts))
        with stage("score"):
            return self._postings.score(asked, docs)

    def _ordered(self, encoded: SparseRows) -> SparseRows:
        """The terms in the order of the whole collection, so that every part adds a score up in the same order."""
        if self._places is None or not len(encoded.terms):
            return encoded
        rows = np.repeat(np.arange(len(encoded)), np.diff(encoded.starts))
        order = np.lexsort((self._places[encoded.terms], rows))
        return SparseRows(encoded.starts, encoded.terms[order], encoded.weights[order])

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """What each term of the query adds."""
        encoded, names, n = self._tokenizer.transform(query.texts), self._tokenizer.vocabulary, len(self._doc_ids)
        terms = list(zip(encoded.terms.tolist(), encoded.weights.tolist(), strict=True))
        found = []
        for doc in docs:
            rows = [
                (
                    names[term],
                    int(times),
                    f"{self._postings.df(term):,} of {n:,}",
                    times * self._postings.weight(term, doc),
                )
                for term, times in terms
            ]
            rows.sort(key=lambda row: -row[3])
            total = sum(row[3] for row in rows)
            held = sum(row[3] > 0 for row in rows)
            said = f"{held} of the {len(rows)} query terms that the corpus knows add up to {total:.4f}"
            found.append(Explanation(said, ("term", "in query", "documents with it", "adds"), list(rows)))
        return found

    def nbytes(self) -> int:
        """Bytes of the postings."""
        return self._postings.nbytes


class RankBM25(Component):
    """BM25Okapi of the rank-bm25 package: every document is scored for every query."""

    _doc_ids = SetByIndex[StringColumn]()
    _model = SetByIndex[Any]()

    def __init__(self, tokenizer: Tokenizer, k1: float = 1.5, b: float = 0.75, epsilon: float = 0.25) -> None:
        _check(k1, b)
        self._tokenizer, self._settings = tokenizer, {"k1": k1, "b": b, "epsilon": epsilon}

    def index(self, corpus: Corpus) -> None:
        """Count the words with the package."""
        from rank_bm25 import BM25Okapi

        with stage("encode"):
            split = self._tokenizer.split(corpus.texts)
        with stage("build"):
            self._doc_ids, self._ranks = corpus.ids, corpus.ranks
            self._model = BM25Okapi(split, **self._settings) if any(split) else None

    def search(self, queries: Queries, k: int) -> Run:
        """The k documents of highest score that share a term with the query."""
        docs, scores = empty_hits(len(queries), min(k, len(self._doc_ids)))
        with stage("encode"):
            split = self._tokenizer.split(queries.texts)
        with stage("search"):
            for row, terms in enumerate(split):
                if not self._model or not terms:
                    continue
                found = self._model.get_scores(terms).astype(np.float32)
                hit = np.flatnonzero(found)
                best = hit[np.lexsort((self._ranks[hit], -found[hit]))][: docs.shape[1]]
                docs[row, : len(best)], scores[row, : len(best)] = best, found[best]
            return Run(queries.ids, self._doc_ids, docs, scores, self._ranks)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """The package's scores [queries, candidates] of the documents `docs`; -inf where there is none (-1)."""
        found = np.where(docs >= 0, np.float32(0.0), np.float32(-np.inf))
        for row, terms in enumerate(self._tokenizer.split(queries.texts)):
            held = docs[row] >= 0
            if self._model and terms and held.any():
                found[row, held] = self._model.get_batch_scores(terms, docs[row, held].tolist())
        return found

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """What the package gives for each term of the query alone."""
        terms = self._tokenizer.split(query.texts)[0]
        alone = {term: self._model.get_scores([term]) * terms.count(term) if self._model else None for term in terms}
        found = []
        for doc in docs:
            rows = [(term, float(scores[doc]) if scores is not None else 0.0) for term, scores in alone.items()]
            rows.sort(key=lambda row: -row[1])
            found.append(
                Explanation(f"the terms add up to {sum(value for _, value in rows):.4f}", ("term", "adds"), list(rows))
            )
        return found

    def nbytes(self) -> int:
        """Bytes of the package's dicts of counts, without the words, which they share."""
        import sys

        return sum(sys.getsizeof(counts) for counts in self._model.doc_freqs) if self._model else 0


def _check(k1: float, b: float) -> None:
    if not k1 >= 0:
        raise ConfigError(f"k1={k1} must be 0 or more; usual values are 0.9 to 2.0")
    if not 0 <= b <= 1:
        raise ConfigError(f"b={b} lies outside 0..1; usual values are 0.4 to 0.75")
