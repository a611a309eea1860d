"""Given documents ranked by what a retriever scores them, where it can score: for reranking tasks and for hybrids."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError
from harness.types import Queries, Run


def check_scores(retriever: Any) -> None:
    """Raises `ConfigError` for a retriever that cannot score given documents."""
    if not hasattr(retriever, "score"):
        raise ConfigError(
            f"{type(retriever).__name__} cannot score given documents: it has no method score(queries, docs), which a "
            "collection with candidates of its own (reranking) needs"
        )


def scored(retriever: Any, queries: Queries, doc_ids: Sequence[str], docs: NDArray[np.int32]) -> Run:
    """The run of the documents `docs` [queries, candidates], scored directly; -1 and what scores -inf is no hit."""
    check_scores(retriever)
    scores = retriever.score(queries, docs)
    return Run(queries.ids, doc_ids, np.where(np.isneginf(scores), -1, docs), scores)
