"""Recommend the best row within limits, and test it against the runner-up."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness import stats
from harness.errors import UndecidedError
from harness.leaderboard.model import AXES, Difference, Leaderboard, Row, Scores
from harness.leaderboard.significance import describe_differences, paired_scores


@dataclass(frozen=True)
class Recommendation:
    """The best row within limits, the runner-up, and the reasons why other rows are excluded. Printed as a table."""

    leaderboard: Leaderboard
    """The leaderboard that the rows are of."""
    best: Row
    runner_up: Row | None
    difference: Difference | None
    """Best minus runner-up; None without a runner-up or without per-query scores of both."""
    excluded: dict[str, str]
    """By label, the first limit that a row exceeds."""

    def __repr__(self) -> str:
        from harness.leaderboard import writers
        from harness.leaderboard.tables.leaderboard import recommendation

        return writers.terminal([recommendation(self)]).rstrip("\n")


def recommend(leaderboard: Leaderboard, limits: Mapping[str, float], scores: Scores) -> Recommendation:
    """Return the row of highest mean that is within every limit.

    Args:
        leaderboard: The leaderboard.
        limits: Bounds by cost (AXES): the lowest allowed value where more is better, otherwise the highest.
        scores: Per-query scores by the path that a record names.

    Raises:
        UndecidedError: No row is within the limits.
    """
    excluded = {row.label: reason for row in leaderboard.rows if (reason := _exclusion(row, limits)) is not None}
    allowed = [row for row in leaderboard.rows if row.label not in excluded]
    if not leaderboard.common:
        raise UndecidedError("no dataset was measured with every retriever; name some: --dataset NAME --retriever NAME")
    if not allowed:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in excluded.items())
        raise UndecidedError(f"no retriever is within the limits ({reasons}); relax one, or measure more retrievers")
    runner_up = allowed[1] if len(allowed) > 1 else None
    difference = _difference(leaderboard, allowed[0], runner_up, scores)
    return Recommendation(leaderboard, allowed[0], runner_up, difference, excluded)


def _exclusion(row: Row, limits: Mapping[str, float]) -> str | None:
    """Return the reason why a row is excluded; None where it is within the limits."""
    if row.mean is None:
        return "not measured on the common datasets"
    for axis, limit in limits.items():
        value = getattr(row, axis)
        if value is None:
            return f"{axis} was not measured"
        if (value < limit) if AXES[axis] else (value > limit):
            return f"{axis} is {value:,.6g}, {'below' if AXES[axis] else 'above'} {limit:,g}"
    return None


def _difference(leaderboard: Leaderboard, best: Row, runner_up: Row | None, scores: Scores) -> Difference | None:
    if runner_up is None:
        return None
    best_parts, other_parts = (
        paired_scores([row.evaluations[name] for name in leaderboard.common], leaderboard.metric, scores)
        for row in (best, runner_up)
    )
    if best_parts is None or other_parts is None:
        return None
    if [part.query_ids for part in best_parts] != [part.query_ids for part in other_parts]:
        return None
    strata: stats.Strata = [
        (part.weight, (part.values - other.values)[:, None])
        for part, other in zip(best_parts, other_parts, strict=True)
    ]
    return describe_differences(strata)[0]
