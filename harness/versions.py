"""Versions of the computations whose results are reused: integers that are raised by hand when a result may change.

A stored evaluation is reused while METRICS, RANKING, DATASETS and the EMBEDDINGS of its encoders are unchanged, a
cached embedding while the EMBEDDINGS of its family are unchanged. The tests in tests/golden/ compare rankings, metrics
and loaded datasets with stored digests; a test that fails names the integer to raise. Changes that do not affect
results, such as those of comments or reports, do not raise an integer.
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
