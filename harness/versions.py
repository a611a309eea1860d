"""Versions of the computations whose results are reused: small integers, raised by hand when a number may change.

A stored evaluation is reused while METRICS, RANKING, DATASETS and the EMBEDDINGS of its encoders are what they were; a
cached embedding while the EMBEDDINGS of its family is. The tests in tests/golden/ hold digests of rankings and of loaded
datasets: one of them fails when a change of the code changes a number, and says which integer to raise. Comments,
reports, and everything else that leaves the numbers as they are leave these integers as they are.
"""

from typing import Final

METRICS: Final = 1
"""Values of the metrics for a given run and qrels."""
RANKING: Final = 1
"""Rankings and scores that a retriever returns for given embeddings or terms: tokenizers, search, fusion, ties."""
DATASETS: Final = 1
"""Corpora, queries and qrels that the dataset loaders read from given files."""
EMBEDDINGS: Final = {
    "dense": 1,
    "splade": 1,
    "token_weights": 1,
    "colbert": 1,
    "cross_encoder": 1,
    "openai": 1,
    "cohere": 1,
    "mteb": 1,
}
"""Outputs of the encoders for given weights and texts, by encoder family."""
