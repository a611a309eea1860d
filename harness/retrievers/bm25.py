"""BM25 over an inverted index (`search.postings`), with Lucene's idf; `RankBM25` wraps the rank-bm25 package.

score(q, d) = sum over query terms, repeated ones included, of idf(t) * tf / (tf + k1 * (1 - b + b * |d| / avgdl));
idf(t) = log(1 + (N - df + .5) / (df + .5)) (Lucene's BM25Similarity, without its lossy document lengths).
"""

import sys
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
    """Corpus statistics that BM25 scores depend on."""

    documents: int
    words: float
    """Total length of the documents in terms."""
    terms: pa.Array
    """Distinct terms in the order of their first occurrence in the corpus."""
    df: NDArray[np.int64]
    """Document frequencies [terms]."""

    def merged(self, following: Sequence[Self]) -> "Statistics":
        """Return the statistics of this shard and of the `following` shards together."""
        shards = [self, *following]
        encoded = pa.concat_arrays([shard.terms for shard in shards]).dictionary_encode()
        df = np.zeros(len(encoded.dictionary), np.int64)
        np.add.at(df, encoded.indices.to_numpy(), np.concatenate([shard.df for shard in shards]))
        documents, words = sum(shard.documents for shard in shards), sum(shard.words for shard in shards)
        return Statistics(documents, words, encoded.dictionary, df)


class BM25(Component):
    """A BM25 retriever.

    Args:
        tokenizer: Splits texts into terms; by default English words with Snowball stems and Lucene's stop words.
        k1: Term frequency saturation, at least 0.
        b: Strength of document length normalisation, 0 to 1.
    """

    is_shardable = True
    """Scores of shards are comparable once each shard has the statistics of the whole corpus."""
    _doc_ids = SetByIndex[StringColumn]()
    _postings = SetByIndex[Postings]()

    def __init__(self, tokenizer: Tokenizer | None = None, k1: float = 1.2, b: float = 0.75) -> None:
        _check(k1, b)
        self._tokenizer, self._k1, self._b = tokenizer or Tokenizer(), k1, b
        self.complete(tokenizer=self._tokenizer)
        self._statistics: Statistics | None = None  # of the whole corpus, if only a shard is indexed here
        self._counted: tuple[Corpus, SparseRows] | None = None
        self._term_order: NDArray[np.int64] | None = None  # index of this shard's terms in `Statistics.terms`

    def corpus_statistics(self, corpus: Corpus) -> Statistics:
        """Return the statistics of `corpus`, one shard; `index` reuses its term counts."""
        counts = self._count(corpus)
        self._counted = corpus, counts
        words, terms = float(counts.weights.sum(dtype=np.float64)), self._terms()
        return Statistics(len(corpus), words, terms, np.bincount(counts.terms, minlength=len(terms)))

    def use_statistics(self, statistics: Statistics) -> None:
        """Use the `statistics` of the whole corpus in the following calls of `index`, which receive one shard."""
        self._statistics = statistics

    def index(self, corpus: Corpus) -> None:
        """Count the terms and compute the score of every posting."""
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
        blocks = [slice(first, first + 65_536) for first in range(0, len(counts), 65_536)]  # bounds float64 memory
        for block in blocks:
            starts = counts.starts[block.start : block.stop + 1]
            entries = slice(starts[0], starts[-1])
            df += np.bincount(counts.terms[entries], minlength=len(df))
            lengths[block] = np.diff(np.cumsum(np.append(0.0, counts.weights[entries]))[starts - starts[0]])
        documents, words = len(counts), lengths.sum()
        if corpus := self._statistics:
            self._term_order = pc.index_in(self._terms(), value_set=corpus.terms).to_numpy().astype(np.int64)
            df, documents, words = corpus.df[self._term_order], corpus.documents, corpus.words
        idf = np.log1p((documents - df + 0.5) / (df + 0.5))
        average = words / documents if words else 1.0
        penalty = self._k1 * (1 - self._b + self._b * lengths / average)
        weights = np.empty_like(counts.weights)
        for block in blocks:
            starts = counts.starts[block.start : block.stop + 1]
            entries = slice(starts[0], starts[-1])
            tf = counts.weights[entries]
            weights[entries] = idf[counts.terms[entries]] * tf / (tf + np.repeat(penalty[block], np.diff(starts)))
        return SparseRows(counts.starts, counts.terms, weights)

    def search(self, queries: Queries, k: int) -> Run:
        """Return the `k` best documents for each of the `queries`, among those that share a term with it."""
        k = min(k, len(self._doc_ids))
        with stage("encode"):
            encoded = self._ordered(self._tokenizer.transform(queries.texts))
        with stage("search"):
            docs, scores = self._postings.search(encoded, k, self._ranks, threads())
            return Run(queries.ids, self._doc_ids, docs, scores, self._ranks)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return scores of `docs` [queries, candidates] for `queries`; 0 without a shared term, -inf for index -1."""
        with stage("encode"):
            encoded = self._ordered(self._tokenizer.transform(queries.texts))
        with stage("score"):
            return self._postings.score(encoded, docs)

    def _ordered(self, encoded: SparseRows) -> SparseRows:
        """Return the terms in the order of the whole corpus, so that every shard sums a score in the same order."""
        if self._term_order is None or not len(encoded.terms):
            return encoded
        rows = np.repeat(np.arange(len(encoded)), np.diff(encoded.starts))
        order = np.lexsort((self._term_order[encoded.terms], rows))
        return SparseRows(encoded.starts, encoded.terms[order], encoded.weights[order])

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """Explain each of `docs` by the score of each term of `query`."""
        encoded, names, n = self._tokenizer.transform(query.texts), self._tokenizer.vocabulary, len(self._doc_ids)
        terms = list(zip(encoded.terms.tolist(), encoded.weights.tolist(), strict=True))
        explanations = []
        for doc in docs:
            rows = [
                (
                    names[term],
                    int(tf),
                    f"{self._postings.df(term):,} of {n:,}",
                    tf * self._postings.weight(term, doc),
                )
                for term, tf in terms
            ]
            rows.sort(key=lambda row: -row[3])
            total = sum(row[3] for row in rows)
            matched = sum(row[3] > 0 for row in rows)
            summary = f"{matched} of the {len(rows)} query terms in the vocabulary of the corpus add up to {total:.4f}"
            explanations.append(Explanation(summary, ("term", "in query", "documents with it", "adds"), list(rows)))
        return explanations

    def nbytes(self) -> int:
        """Return the bytes of the postings."""
        return self._postings.nbytes


class RankBM25(Component):
    """BM25Okapi of the rank-bm25 package: every document is scored for every query.

    Args:
        tokenizer: Splits texts into terms.
        k1: Term frequency saturation, at least 0.
        b: Strength of document length normalisation, 0 to 1.
        epsilon: Terms with a negative idf get this fraction of the mean idf instead.
    """

    _doc_ids = SetByIndex[StringColumn]()
    _model = SetByIndex[Any]()

    def __init__(self, tokenizer: Tokenizer, k1: float = 1.5, b: float = 0.75, epsilon: float = 0.25) -> None:
        _check(k1, b)
        self._tokenizer, self._settings = tokenizer, {"k1": k1, "b": b, "epsilon": epsilon}

    def index(self, corpus: Corpus) -> None:
        """Tokenise the corpus and index it with the package."""
        from rank_bm25 import BM25Okapi

        with stage("encode"):
            split = self._tokenizer.split(corpus.texts)
        with stage("build"):
            self._doc_ids, self._ranks = corpus.ids, corpus.ranks
            self._model = BM25Okapi(split, **self._settings) if any(split) else None

    def search(self, queries: Queries, k: int) -> Run:
        """Return the `k` best documents for each of the `queries`, without those that score 0."""
        docs, scores = empty_hits(len(queries), min(k, len(self._doc_ids)))
        with stage("encode"):
            split = self._tokenizer.split(queries.texts)
        with stage("search"):
            for row, terms in enumerate(split):
                if not self._model or not terms:
                    continue
                all_scores = self._model.get_scores(terms).astype(np.float32)
                hits = np.flatnonzero(all_scores)
                best = hits[np.lexsort((self._ranks[hits], -all_scores[hits]))][: docs.shape[1]]
                docs[row, : len(best)], scores[row, : len(best)] = best, all_scores[best]
            return Run(queries.ids, self._doc_ids, docs, scores, self._ranks)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return scores of `docs` [queries, candidates] for `queries`; -inf where `docs` is -1."""
        scores = np.where(docs >= 0, np.float32(0.0), np.float32(-np.inf))
        for row, terms in enumerate(self._tokenizer.split(queries.texts)):
            is_doc = docs[row] >= 0
            if self._model and terms and is_doc.any():
                scores[row, is_doc] = self._model.get_batch_scores(terms, docs[row, is_doc].tolist())
        return scores

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """Explain each of `docs` by the score of each term of `query` alone."""
        terms = self._tokenizer.split(query.texts)[0]
        by_term = {term: self._model.get_scores([term]) * terms.count(term) if self._model else None for term in terms}
        explanations = []
        for doc in docs:
            rows = [(term, float(scores[doc]) if scores is not None else 0.0) for term, scores in by_term.items()]
            rows.sort(key=lambda row: -row[1])
            summary = f"the terms add up to {sum(value for _, value in rows):.4f}"
            explanations.append(Explanation(summary, ("term", "adds"), list(rows)))
        return explanations

    def nbytes(self) -> int:
        """Return the bytes of the package's dictionaries of term counts, without the terms, which they share."""
        return sum(sys.getsizeof(counts) for counts in self._model.doc_freqs) if self._model else 0


def _check(k1: float, b: float) -> None:
    if not k1 >= 0:
        raise ConfigError(f"k1={k1} must be 0 or more; usual values are 0.9 to 2.0")
    if not 0 <= b <= 1:
        raise ConfigError(f"b={b} must be between 0 and 1; usual values are 0.4 to 0.75")
