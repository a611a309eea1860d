"""The best row within limits, the runner-up, and whether they can be told apart."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness import stats
from harness.errors import UndecidedError
from harness.leaderboard.model import AXES, Board, Difference, Row, Scores
from harness.leaderboard.significance import described, paired_parts


@dataclass(frozen=True)
class Recommendation:
    """What to take, and why not the others."""

    best: Row
    runner_up: Row | None
    difference: Difference | None
    """Best minus runner-up; None without a runner-up or without per-query scores of both."""
    excluded: dict[str, str]
    """By label, the first limit that a row does not keep."""


def recommend(board: Board, limits: Mapping[str, float], scores: Scores) -> Recommendation:
    """The row of highest mean that keeps every limit: at least, or at most where less of the cost is better.

    Raises `UndecidedError` when none does.
    """
    excluded = {row.label: why for row in board.rows if (why := _fails(row, limits)) is not None}
    kept = [row for row in board.rows if row.label not in excluded]
    if not board.common:
        raise UndecidedError("no dataset was measured with every retriever; name some: --dataset NAME --retriever NAME")
    if not kept:
        told = "; ".join(f"{label}: {why}" for label, why in excluded.items())
        raise UndecidedError(f"no retriever is within the limits ({told}); relax one, or measure more retrievers")
    runner_up = kept[1] if len(kept) > 1 else None
    return Recommendation(kept[0], runner_up, _between(board, kept[0], runner_up, scores), excluded)


def _fails(row: Row, limits: Mapping[str, float]) -> str | None:
    if row.mean is None:
        return "not measured on the common datasets"
    for axis, limit in limits.items():
        value = getattr(row, axis)
        if value is None:
            return f"{axis} was not measured"
        if (value < limit) if AXES[axis] else (value > limit):
            return f"{axis} is {value:,.6g}, {'below' if AXES[axis] else 'above'} {limit:,g}"
    return None


def _between(board: Board, best: Row, other: Row | None, scores: Scores) -> Difference | None:
    if other is None:
        return None
    ours = paired_parts([best.cells[name] for name in board.common], board.metric, scores)
    theirs = paired_parts([other.cells[name] for name in board.common], board.metric, scores)
    if ours is None or theirs is None or [ids for _, ids, _ in ours] != [ids for _, ids, _ in theirs]:
        return None
    strata: stats.Strata = [
        (weight, (own - his)[:, None]) for (weight, _, own), (_, _, his) in zip(ours, theirs, strict=True)
    ]
    return described(strata)[0]
