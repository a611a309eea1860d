"""The nested dicts `{query id: {document id: score}}` of BEIR and mteb as runs."""

from collections.abc import Mapping, Sequence

import numpy as np

from harness.errors import RunError
from harness.types import Corpus, Run


def from_dict(query_ids: Sequence[str], corpus: Corpus, scores: Mapping[str, Mapping[str, float]]) -> Run:
    """Return the run of some queries over a corpus.

    Args:
        query_ids: Queries of the run; one that `scores` lacks has no hits.
        corpus: The documents that were searched.
        scores: Score by query id and document id.

    Raises:
        RunError: A hit is not in the corpus, or its score is NaN or infinite.
    """
    positions = {doc: position for position, doc in enumerate(corpus.ids)}
    depth = max((len(scores.get(query, ())) for query in query_ids), default=0)
    docs, values = np.full((len(query_ids), depth), -1, np.int32), np.zeros((len(query_ids), depth), np.float32)
    for row, query in enumerate(query_ids):
        hits = scores.get(query, {})
        if unknown := [doc for doc in hits if doc not in positions]:
            raise RunError(f"query {query!r}: hit {unknown[0]!r} is none of the corpus' {len(positions)} documents")
        docs[row, : len(hits)] = [positions[doc] for doc in hits]
        values[row, : len(hits)] = list(hits.values())
    return Run(query_ids, corpus.ids, docs, values, corpus.ranks)
