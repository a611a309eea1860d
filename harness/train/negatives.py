"""Negatives for training: documents that do not answer a query, mined from a retriever's run or drawn at random."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.instrument import stage
from harness.types import Corpus, Queries, Retriever


class Negatives(Protocol):
    """Chooses `n` negatives for a query: conf/negatives/*.yaml."""

    n: int

    def choose(self, queries: Queries, corpus: Corpus, known: Sequence[set[int]]) -> list[list[int]]:
        """Document numbers for each query, none of them among its known positives; fewer where fewer are left."""
        ...


class Random:
    """`n` documents for each query, any that are no known positive of it and do not have the text of one."""

    def __init__(self, n: int, seed: int = 0) -> None:
        _check_amount(n)
        self.n, self._seed = n, seed

    def choose(self, queries: Queries, corpus: Corpus, known: Sequence[set[int]]) -> list[list[int]]:
        """Document numbers for each query, whose known positives are one set each; fewer where fewer are left."""
        rng = np.random.default_rng(self._seed)
        return [_drawn(self.n, corpus, own, _texts(corpus, own), rng) for own in known]


class Mined:
    """`n` hard negatives for each query: documents that a retriever takes for answers and that are none.

    Drawn from the ranks of `window` (first, last; from 1) of the retriever's run. `margin` keeps out what may answer
    unnoticed: a document's score must be at most (1 - margin) of the score of the best known positive in these ranks,
    a share of its size where that is negative (NV-Retriever, 2024: TopK-PercPos). No margin holds for None, and for a
    query none of whose known positives is ranked.
    """

    def __init__(
        self, retriever: Retriever, n: int, window: list[int], margin: float | None = None, seed: int = 0
    ) -> None:
        _check_amount(n)
        if len(window) != 2 or not 1 <= window[0] <= window[1]:
            raise ConfigError(f"negatives.window={window} must be two ranks, first and last, from 1; such as [2,100]")
        if margin is not None and not 0 <= margin < 1:
            raise ConfigError(f"negatives.margin={margin} must be a share from 0 to below 1, or null")
        self.n, self._seed = n, seed
        self._retriever, self._first, self._last, self._margin = retriever, window[0], window[1], margin

    def choose(self, queries: Queries, corpus: Corpus, known: Sequence[set[int]]) -> list[list[int]]:
        """Document numbers for each query, best ranked first; fewer where fewer are left."""
        if not len(queries):
            return []
        row_of = {text: row for row, text in enumerate(dict.fromkeys(queries.texts))}
        with stage("mine negatives", total=len(row_of)) as step:
            self._retriever.index(corpus)
            run = self._retriever.search(Queries([str(row) for row in row_of.values()], row_of), self._last)
            step(len(row_of))
        rng = np.random.default_rng(self._seed)
        chosen = []
        for text, own in zip(queries.texts, known, strict=True):
            docs, scores = run.docs[row_of[text]], run.scores[row_of[text]]
            left = _without_texts(self._eligible(docs, scores, own), corpus, _texts(corpus, own))
            places = np.sort(rng.choice(len(left), min(self.n, len(left)), replace=False))
            chosen.append([left[place] for place in places])
        return chosen

    def _eligible(self, docs: NDArray[np.int32], scores: NDArray[np.float32], known: set[int]) -> list[int]:
        """Document numbers of the window, best first, that are no known positive and keep the margin."""
        positive = next((score for doc, score in zip(docs.tolist(), scores, strict=True) if doc in known), None)
        limit = np.inf
        if self._margin is not None and positive is not None:
            limit = positive - self._margin * abs(positive)
        window = slice(self._first - 1, self._last)
        ranked = zip(docs[window].tolist(), scores[window], strict=True)
        return [doc for doc, score in ranked if doc >= 0 and doc not in known and score <= limit]


def extended(
    chosen: Sequence[list[int]], n: int, corpus: Corpus, known: Sequence[set[int]], seed: int
) -> list[list[int]]:
    """Negatives with random ones after them where a query has fewer than `n`; fewer where fewer are left."""
    rng = np.random.default_rng(seed)
    rows = zip(chosen, known, strict=True)
    return [[*own, *_drawn(n - len(own), corpus, docs | set(own), _texts(corpus, docs), rng)] for own, docs in rows]


def filled(
    chosen: Sequence[list[int]], n: int, queries: Queries, corpus: Corpus, known: Sequence[set[int]], seed: int
) -> list[list[int]]:
    """As `extended`, `n` for every query. Raises `ConfigError` where the corpus has too few that are no positives."""
    whole = extended(chosen, n, corpus, known, seed)
    for row, own in enumerate(whole):
        if len(own) < n:
            raise ConfigError(
                f"negatives.n={n}: of {len(corpus)} documents only {len(own)} can be negatives of "
                f"{queries.texts[row][:60]!r}; try: negatives.n={len(own)}"
            )
    return whole


def _drawn(n: int, corpus: Corpus, barred: set[int], texts: set[str], rng: np.random.Generator) -> list[int]:
    """`n` random documents, fewer where fewer are left, none that is barred or has a barred text."""
    wanted, found = n + len(barred), list[int]()
    while n > 0 and len(found) < n:
        wanted = min(2 * wanted, len(corpus))
        drawn = rng.choice(len(corpus), wanted, replace=False).tolist()
        found = _without_texts([doc for doc in drawn if doc not in barred], corpus, texts)
        if wanted == len(corpus):
            break
    return found[:n]


def _texts(corpus: Corpus, docs: set[int]) -> set[str]:
    return set(corpus.texts.take(np.fromiter(docs, np.int64)))


def _without_texts(docs: list[int], corpus: Corpus, texts: set[str]) -> list[int]:
    found = corpus.texts.take(np.array(docs, np.int64))
    return [doc for doc, text in zip(docs, found, strict=True) if text not in texts]


def _check_amount(n: int) -> None:
    if n < 0:
        raise ConfigError(f"negatives.n={n} must be 0 or more")
