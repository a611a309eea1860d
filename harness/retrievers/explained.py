"""What retrievers that are made of others need to explain themselves."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.types import Explainer, Explanation, Queries, Run


def explained(parts: Mapping[str, Any], query: Queries, docs: list[int]) -> dict[str, list[Explanation]]:
    """What those parts say that can explain themselves."""
    return {name: part.explain(query, docs) for name, part in parts.items() if isinstance(part, Explainer)}


def standing(run: Run, doc: int) -> tuple[int | None, float | None]:
    """Rank, from 1, and score of a document in a run of one query; None where it is not there."""
    places = np.flatnonzero(run.docs[0] == doc)
    return (int(places[0]) + 1, float(run.scores[0, places[0]])) if len(places) else (None, None)
