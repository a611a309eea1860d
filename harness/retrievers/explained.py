"""Helpers for the explanations of composite retrievers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.types import Explainer, Explanation, Queries, Run


def explain_parts(parts: Mapping[str, Any], query: Queries, docs: list[int]) -> dict[str, list[Explanation]]:
    """Return the explanations of `docs` for `query` by each of `parts` that is an `Explainer`, by the part's name."""
    return {name: part.explain(query, docs) for name, part in parts.items() if isinstance(part, Explainer)}


def rank_and_score(run: Run, doc: int) -> tuple[int | None, float | None]:
    """Return the rank, from 1, and the score of `doc` in a `run` of one query; None for both if it is not a hit."""
    positions = np.flatnonzero(run.docs[0] == doc)
    return (int(positions[0]) + 1, float(run.scores[0, positions[0]])) if len(positions) else (None, None)
