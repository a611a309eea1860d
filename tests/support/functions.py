"""A retriever that is a plain function, over the documents of `support.datasets.pets_dataset`, and its evaluation."""

from typing import Any

import harness
from harness.types import Dataset, Queries
from support.datasets import PET_TEXTS

UNTIMED: dict[str, Any] = {"timing": None, "metrics": ["ndcg@10"], "k": 10}
"""Settings of `harness.evaluate` for scores alone."""


def shared_words(queries: Queries, k: int) -> dict[str, dict[str, float]]:
    """Return the documents that share a word with the query, by the number of shared words."""
    return {
        query: {doc: float(n) for doc, text in PET_TEXTS.items() if (n := len({*text.split()} & {*words.split()}))}
        for query, words in queries.items()
    }


def ndcg_of(retriever: object, dataset: Dataset, **settings: object) -> float:
    """Return the mean nDCG@10 of a retriever, given as `harness.evaluate` takes it."""
    frame = harness.evaluate(retriever, dataset, **{**UNTIMED, **settings}).to_pandas()
    return float(frame["ndcg@10"][0])
