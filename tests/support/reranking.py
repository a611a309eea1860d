"""A reranking collection of a retrieval one: each query has candidates that a first stage would not find."""

from dataclasses import replace

import numpy as np

from harness.types import Dataset


def with_strangers(dataset: Dataset, n: int = 6, seed: int = 0) -> Dataset:
    """The collection with, for each query, its relevant documents and n others drawn from the whole corpus."""
    rng = np.random.default_rng(seed)
    ids = list(dataset.corpus.ids)
    candidates = {}
    for query in dataset.queries.ids:
        drawn = [ids[place] for place in rng.permutation(len(ids))[:n]]
        candidates[query] = list(dict.fromkeys([*drawn, *dataset.qrels[query]]))
    return replace(dataset, candidates=candidates)
