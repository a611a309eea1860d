"""Reranking: a first stage finds candidates, a scorer scores each of them directly and orders them anew."""

import logging
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.encoders.cross import CrossEncoder
from harness.errors import ConfigError
from harness.instrument import component, describe
from harness.retrievers.explained import explained, standing
from harness.retrievers.scored import within
from harness.retrievers.state import SetByIndex
from harness.types import Corpus, Explanation, Queries, Retriever, Run, StringColumn
from harness.types.protocols import Component, is_precomputed

log = logging.getLogger(__name__)


class Scorer(Protocol):
    """What can score given documents; some retrievers, such as ColBERT, can do that too."""

    def index(self, corpus: Corpus) -> None:
        """Make ready to score documents of the corpus."""
        ...

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores [queries, candidates] of the documents `docs` [queries, candidates]; -inf where there is none (-1)."""
        ...

    def nbytes(self) -> int:
        """Bytes that it holds to score."""
        ...


class CrossEncoderScorer(Component):
    """A cross-encoder over the documents' texts."""

    _texts = SetByIndex[StringColumn]()

    def __init__(self, encoder: CrossEncoder) -> None:
        self._encoder = encoder

    def index(self, corpus: Corpus) -> None:
        """Keep the texts; nothing is encoded before a query is there."""
        self._encoder.load()
        self._texts = corpus.texts

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """The model's score of each query with each of its candidates."""
        return self._encoder.score(queries.texts, self._texts, docs)

    def nbytes(self) -> int:
        """Bytes of the texts."""
        return int(self._texts.arrow.nbytes)


class Rerank(Component):
    """The first stage's `depth` best, in the scorer's order; nothing beyond them is returned."""

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
        """Whether the first stage's rankings were made elsewhere, at a cost that nobody knows here."""
        return is_precomputed(self._first_stage)

    def index(self, corpus: Corpus) -> None:
        """Index with the first stage, and make the scorer ready."""
        self._doc_ids = corpus.ids
        with component("first_stage"):
            self._first_stage.index(corpus)
        with component("scorer"):
            self._scorer.index(corpus)

    def search(self, queries: Queries, k: int) -> Run:
        """The k best of the first stage's candidates by the scorer."""
        if k > self._depth + 1 and not self._warned:  # one more is searched where a query's own document is dropped
            self._warned = True
            log.warning("retriever.depth=%d is less than k=%d: recall beyond it is not measured", self._depth, k)
        depth, doc_ids = k if k == self._depth + 1 else self._depth, self._doc_ids
        with component("first_stage"):
            found = within(self._first_stage.search(queries, depth), queries.ids, doc_ids)
        with component("scorer"):
            scores = self._scorer.score(queries, found.docs)
        describe("depth", self._depth)
        docs = np.where(np.isneginf(scores), -1, found.docs)
        return Run(queries.ids, found.doc_ids, docs, scores).top(k)

    def score(self, queries: Queries, docs: NDArray[np.int32]) -> NDArray[np.float32]:
        """The scorer's scores of the documents `docs`, whatever the first stage thinks of them."""
        with component("scorer"):
            return self._scorer.score(queries, docs)

    def explain(self, query: Queries, docs: list[int]) -> list[Explanation]:
        """Rank and score in the first stage, and after the scorer."""
        before = self._first_stage.search(query, self._depth)
        after = self.search(query, self._depth)
        inner = explained({"first_stage": self._first_stage, "scorer": self._scorer}, query, docs)
        found = []
        for place, doc in enumerate(docs):
            ranks = [standing(run, doc) for run in (before, after)]
            said = (
                f"from rank {ranks[0][0]} to rank {ranks[1][0]}"
                if ranks[0][0]
                else f"not among the first stage's {self._depth} best, so it is not scored"
            )
            rows = [(name, *rank) for name, rank in zip(("first stage", "scorer"), ranks, strict=True)]
            found.append(
                Explanation(
                    said, ("stage", "rank", "score"), list(rows), {name: own[place] for name, own in inner.items()}
                )
            )
        return found

    def nbytes(self) -> int:
        """Bytes of both stages."""
        return self._first_stage.nbytes() + self._scorer.nbytes()
