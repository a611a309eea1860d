"""Comparison of stored golden values with current ones: exact, numeric, and of rankings with their near ties."""

import math
from collections.abc import Sequence
from typing import Any

Values = dict[str, Any]
Hits = Sequence[tuple[str, float]]
DEPTH = 10
"""Hits that are stored for each query."""
DIGITS = 5
"""Decimals of a stored score."""


def exact_difference(stored: Values, current: Values) -> str | None:
    """Return the first key whose value differs."""
    for key in dict.fromkeys([*stored, *current]):
        if stored.get(key) != current.get(key):
            return f"{key}: stored {stored.get(key)!r}, now {current.get(key)!r}"
    return None


def numeric_difference(stored: Values, current: Values, tolerance: float = 1e-8) -> str | None:
    """Return the first number that differs by more than `tolerance`; values are {name: {query: number}}."""
    for name in dict.fromkeys([*stored, *current]):
        before, now = stored.get(name, {}), current.get(name, {})
        for query in dict.fromkeys([*before, *now]):
            pair = before.get(query), now.get(query)
            if None in pair or abs(before[query] - now[query]) > tolerance:
                return f"{name} of query {query}: stored {pair[0]}, now {pair[1]}"
    return None


def ranking_difference(
    stored: Values, current: Values, *, tolerance: float = 2e-5, strict_order: bool = False
) -> str | None:
    """Return the first query and rank at which two rankings differ.

    Args:
        stored: Hits by query, best first, at most DEPTH.
        current: The same.
        tolerance: Scores of up to 1 may differ by this much, larger ones by this share of them. Documents whose stored
            scores are that close may swap places, and the last one may be replaced by one as close to it.
        strict_order: No documents may swap places; for scores that come out the same on every processor.
    """
    for query in dict.fromkeys([*stored, *current]):
        if query not in stored or query not in current:
            return f"query {query}: {'no longer' if query in stored else 'not yet'} among the queries"
        if difference := _hits_difference(stored[query], current[query], tolerance, strict_order):
            return f"query {query}, {difference}"
    return None


def _hits_difference(stored: Hits, current: Hits, tolerance: float, strict_order: bool) -> str | None:
    scores = dict(stored)
    # a document that is not stored may have been the next one, where not all hits are stored
    beyond = stored[-1][1] if len(stored) == DEPTH else -math.inf
    for rank, ((doc, score), (current_doc, current_score)) in enumerate(zip(stored, current, strict=False), start=1):
        slack = tolerance * max(1.0, abs(score))
        moved = current_doc != doc and (strict_order or abs(scores.get(current_doc, beyond) - score) > slack)
        if moved or abs(current_score - score) > slack:
            return f"rank {rank}: stored {doc} {score}, now {current_doc} {current_score}"
    if len(stored) != len(current):
        return f"rank {min(len(stored), len(current)) + 1}: stored {len(stored)} hits, now {len(current)}"
    return None
