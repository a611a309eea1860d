"""A Recommendation as a few plain lines, and what JSON holds."""

from dataclasses import asdict
from typing import Any

from harness.leaderboard import AXES, Board, Row
from harness.leaderboard.recommend import Recommendation
from harness.leaderboard.tables import figures
from harness.stats import ALPHA


def render(board: Board, found: Recommendation) -> str:
    """The best, the runner-up, whether they can be told apart, and what was left out."""
    over = ", ".join(board.common)
    lines = [f"take {_told(board, found.best)}, over {over}"]
    if found.runner_up is None:
        lines.append("no other retriever is within the limits")
    else:
        lines.append(f"runner-up {_told(board, found.runner_up)}")
        lines.append(_difference(found))
    lines += [f"left out {label}: {why}" for label, why in found.excluded.items()]
    if len(board.environments) > 1:
        lines.append(f"costs come from {len(board.environments)} environments and do not compare across them")
    return "\n".join(lines) + "\n"


def as_plain(board: Board, found: Recommendation) -> dict[str, Any]:
    """Lists, dicts, strings and numbers, not rounded."""
    return {
        "metric": board.metric,
        "datasets": board.common,
        "best": _row(found.best),
        "runner_up": None if found.runner_up is None else _row(found.runner_up),
        "difference": None if found.difference is None else asdict(found.difference),
        "significant": None if found.difference is None else found.difference.p < ALPHA,
        "excluded": found.excluded,
        "environments": board.environments,
    }


def _told(board: Board, row: Row) -> str:
    costs = [f"{figures.HEADINGS[axis]} {figures.amount(getattr(row, axis))}" for axis in AXES]
    return f"{row.label}: {board.metric} {row.mean:.4f}, {', '.join(costs)}"


def _difference(found: Recommendation) -> str:
    one = found.difference
    if one is None:
        return "whether they differ cannot be tested: per-query scores are missing"
    said = f"{one.delta:+.4f} [{one.low:+.4f}, {one.high:+.4f}], {figures.p_value(one.p)}"
    if one.p < ALPHA:
        return f"the difference is significant: {said}"
    return f"these queries do not tell them apart: {said}"


def _row(row: Row) -> dict[str, Any]:
    return {"label": row.label, "mean": row.mean, **{axis: getattr(row, axis) for axis in AXES}}
