"""Reranking: a first stage retrieves candidates, and a scorer scores and reorders them."""

import logging
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.encoders.cross import CrossEncoder
from harness.errors import ConfigError
from harness.instrument import component, describe
from harness.retrievers.explained import explain_parts, rank_and_score
from harness.retrievers.scored import to_corpus
from harness.retrievers.state import SetByIndex
from harness.types import Corpus, Explanation, Queries, Retriever, Run, StringColumn
from harness.types.protocols import Component, is_precomputed

log = logging.getLogger(__name__)


class Scorer(Protocol):
    """Protocol for scorers of given documents; retrievers such as ColBERT are scorers too."""

    def index(self, corpus: Corpus) -> None:
        """Prepare to score documents of the corpus."""
        ...

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return scores of `docs` [queries, candidates] for `queries`; -inf where `docs` is -1."""
        ...

    def nbytes(self) -> int:
        """Return the bytes that scoring needs in memory."""
        ...


class CrossEncoderScorer(Component):
    """A scorer that applies a cross-encoder to the documents' texts."""

    _texts = SetByIndex[StringColumn]()

    def __init__(self, encoder: CrossEncoder) -> None:
        self._encoder = encoder

    def index(self, corpus: Corpus) -> None:
        """Load the model and store the texts; pairs are encoded in `score`."""
        self._encoder.load()
        self._texts = corpus.texts

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the model's scores of `docs` [queries, candidates] for `queries`; -inf where `docs` is -1."""
        return self._encoder.score(queries.texts, self._texts, docs)

    def nbytes(self) -> int:
        """Return the bytes of the texts."""
        return int(self._texts.arrow.nbytes)


class Rerank(Component):
    """A reranking retriever: the first stage's best documents, in the scorer's order.

    Args:
        first_stage: Retrieves the candidates.
        scorer: Scores the candidates; a string is the name or folder of a cross-encoder.
        depth: Number of candidates of each query; no other documents are returned.
    """

    _doc_ids = SetByIndex[StringColumn]()

    def __init__(self, first_stage: Retriever, scorer: Scorer | str, depth: int = 100) -> None:
        if depth < 1:
            raise ConfigError(f"retriever.depth={depth} must be at least 1")
        if isinstance(scorer, str):
            scorer = CrossEncoderScorer(CrossEncoder(scorer))
            self.complete(scorer=scorer)
        self._first_stage, self._scorer, self._depth = first_stage, scorer, depth
        self._warned = False

    @property
    def is_precomputed(self) -> bool:
        """True if the first stage's rankings were made elsewhere, so that their cost is unknown."""
        return is_precomputed(self._first_stage)

    def index(self, corpus: Corpus) -> None:
        """Index the corpus with the first stage and the scorer."""
        self._doc_ids = corpus.ids
        with component("first_stage"):
            self._first_stage.index(corpus)
        with component("scorer"):
            self._scorer.index(corpus)

    def search(self, queries: Queries, k: int) -> Run:
        """Return the `k` best of the first stage's candidates for each of the `queries`, by the scorer."""
        if k > self._depth + 1 and not self._warned:  # k is one higher if a hit that is the query is dropped
            self._warned = True
            log.warning("retriever.depth=%d is less than k=%d: recall beyond it is not measured", self._depth, k)
        depth, doc_ids = k if k == self._depth + 1 else self._depth, self._doc_ids
        with component("first_stage"):
            candidates = to_corpus(self._first_stage.search(queries, depth), queries.ids, doc_ids)
        with component("scorer"):
            scores = self._scorer.score(queries, candidates.docs)
        describe("depth", self._depth)
        docs = np.where(np.isneginf(scores), -1, candidates.docs)
        return Run(queries.ids, candidates.doc_ids, docs, scores).top(k)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the scorer's scores of `docs` [queries, candidates] for `queries`, without the first stage."""
        with component("scorer"):
            return self._scorer.score(queries, docs)

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """Explain each of `docs` by its rank and score for `query` in the first stage and after the scorer."""
        before = self._first_stage.search(query, self._depth)
        after = self.search(query, self._depth)
        inner = explain_parts({"first_stage": self._first_stage, "scorer": self._scorer}, query, docs)
        explanations = []
        for index, doc in enumerate(docs):
            ranks = [rank_and_score(run, doc) for run in (before, after)]
            summary = (
                f"from rank {ranks[0][0]} to rank {ranks[1][0]}"
                if ranks[0][0]
                else f"not among the first stage's {self._depth} best, so it is not scored"
            )
            rows = [(name, *rank) for name, rank in zip(("first stage", "scorer"), ranks, strict=True)]
            parts = {name: explanations_of_part[index] for name, explanations_of_part in inner.items()}
            explanations.append(Explanation(summary, ("stage", "rank", "score"), list(rows), parts))
        return explanations

    def nbytes(self) -> int:
        """Return the bytes of both stages."""
        return self._first_stage.nbytes() + self._scorer.nbytes()
