"""Negatives for training: hard negatives mined from a retriever's run, or random documents."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.instrument import stage
from harness.types import Corpus, Queries, Retriever


class Negatives(Protocol):
    """Protocol for choosing `n` negatives of a query; see conf/negatives/*.yaml."""

    n: int

    def choose(self, queries: Queries, corpus: Corpus, known: Sequence[set[int]]) -> list[list[int]]:
        """Return up to `n` document indices for each query, none of them among its known positives.

        Args:
            queries: The queries.
            corpus: The documents.
            known: Document indices of the known positives of each query.
        """
        ...


class Random:
    """Random negatives: `n` documents for each query that are not known positives and do not have the text of one."""

    def __init__(self, n: int, seed: int = 0) -> None:
        _check_n(n)
        self.n, self._seed = n, seed

    def choose(self, queries: Queries, corpus: Corpus, known: Sequence[set[int]]) -> list[list[int]]:
        """Return up to `n` random indices in `corpus` for each of the `queries`, without its `known` positives."""
        rng = np.random.default_rng(self._seed)
        return [_draw(self.n, corpus, positives, _texts(corpus, positives), rng) for positives in known]


class Mined:
    """Hard negatives: `n` documents for each query that a retriever ranks high and that are not known positives.

    They are drawn from the ranks of `window` (first and last, from 1) of the retriever's run. `margin` excludes likely
    false negatives: with p the score of the best known positive in the run down to the window's last rank, a document's
    score must be at most p - margin * abs(p) (TopK-PercPos, NV-Retriever, 2024). There is no limit if `margin` is None
    or the run has no known positive of the query.
    """

    def __init__(
        self, retriever: Retriever, n: int, window: list[int], margin: float | None = None, seed: int = 0
    ) -> None:
        _check_n(n)
        if len(window) != 2 or not 1 <= window[0] <= window[1]:
            raise ConfigError(f"negatives.window={window} must be two ranks, first and last, from 1; such as [2,100]")
        if margin is not None and not 0 <= margin < 1:
            raise ConfigError(f"negatives.margin={margin} must be a share from 0 to below 1, or null")
        self.n, self._seed = n, seed
        self._retriever, self._first, self._last, self._margin = retriever, window[0], window[1], margin

    def choose(self, queries: Queries, corpus: Corpus, known: Sequence[set[int]]) -> list[list[int]]:
        """Return up to `n` indices in `corpus` for each of the `queries`, in rank order, without `known` positives."""
        if not len(queries):
            return []
        row_of = {text: row for row, text in enumerate(dict.fromkeys(queries.texts))}
        with stage("mine negatives", total=len(row_of)) as step:
            self._retriever.index(corpus)
            run = self._retriever.search(Queries([str(row) for row in row_of.values()], row_of), self._last)
            step(len(row_of))
        rng = np.random.default_rng(self._seed)
        chosen = []
        for text, positives in zip(queries.texts, known, strict=True):
            docs, scores = run.docs[row_of[text]], run.scores[row_of[text]]
            eligible = _without_texts(self._eligible(docs, scores, positives), corpus, _texts(corpus, positives))
            drawn = np.sort(rng.choice(len(eligible), min(self.n, len(eligible)), replace=False))
            chosen.append([eligible[position] for position in drawn])
        return chosen

    def _eligible(self, docs: NDArray[np.int32], scores: NDArray[np.float32], known: set[int]) -> list[int]:
        """Return the documents of the window, best first, that are not known positives and satisfy the margin."""
        best_positive = next((score for doc, score in zip(docs.tolist(), scores, strict=True) if doc in known), None)
        limit = np.inf
        if self._margin is not None and best_positive is not None:
            limit = best_positive - self._margin * abs(best_positive)
        window = slice(self._first - 1, self._last)
        ranked = zip(docs[window].tolist(), scores[window], strict=True)
        return [doc for doc, score in ranked if doc >= 0 and doc not in known and score <= limit]


def pad_with_random(
    chosen: Sequence[list[int]], n: int, corpus: Corpus, known: Sequence[set[int]], seed: int
) -> list[list[int]]:
    """Add random negatives to queries with fewer than `n`, as far as the corpus has enough documents.

    Args:
        chosen: Document indices of each query's negatives.
        n: The number of negatives to reach.
        corpus: The documents.
        known: Document indices of each query's known positives.
        seed: Seed of the draw.
    """
    rng = np.random.default_rng(seed)
    padded = []
    for negatives, positives in zip(chosen, known, strict=True):
        excluded = positives | set(negatives)
        added = _draw(n - len(negatives), corpus, excluded, _texts(corpus, positives), rng)
        padded.append([*negatives, *added])
    return padded


def fill_with_random(
    chosen: Sequence[list[int]], n: int, queries: Queries, corpus: Corpus, known: Sequence[set[int]], seed: int
) -> list[list[int]]:
    """Add random negatives to `chosen` as `pad_with_random` does, given `corpus`, `known` and `seed`.

    Raises:
        ConfigError: One of the `queries` still has fewer than `n` negatives.
    """
    padded = pad_with_random(chosen, n, corpus, known, seed)
    for row, negatives in enumerate(padded):
        if len(negatives) < n:
            raise ConfigError(
                f"negatives.n={n}: of {len(corpus)} documents only {len(negatives)} can be negatives of "
                f"{queries.texts[row][:60]!r}; try: negatives.n={len(negatives)}"
            )
    return padded


def _draw(n: int, corpus: Corpus, excluded: set[int], texts: set[str], rng: np.random.Generator) -> list[int]:
    """Draw up to `n` random documents that are not excluded by index or by text."""
    sample_size, eligible = n + len(excluded), list[int]()
    while n > 0 and len(eligible) < n:
        sample_size = min(2 * sample_size, len(corpus))
        drawn = rng.choice(len(corpus), sample_size, replace=False).tolist()
        eligible = _without_texts([doc for doc in drawn if doc not in excluded], corpus, texts)
        if sample_size == len(corpus):
            break
    return eligible[:n]


def _texts(corpus: Corpus, docs: set[int]) -> set[str]:
    return set(corpus.texts.take(np.fromiter(docs, np.int64)))


def _without_texts(docs: list[int], corpus: Corpus, texts: set[str]) -> list[int]:
    doc_texts = corpus.texts.take(np.array(docs, np.int64))
    return [doc for doc, text in zip(docs, doc_texts, strict=True) if text not in texts]


def _check_n(n: int) -> None:
    if n < 0:
        raise ConfigError(f"negatives.n={n} must be 0 or more")
