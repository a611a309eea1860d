"""Recommend the best row within limits, and test it against the runner-up."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import ConfigError, UndecidedError
from harness.leaderboard.model import AXES, Difference, Leaderboard, Row
from harness.metrics import is_coverage


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
    uncertain: dict[str, str] = field(default_factory=dict)
    """By label, limits that a row meets or misses by less than its uncertainty, and figures of a busy machine."""

    def __repr__(self) -> str:
        from harness.leaderboard import writers
        from harness.leaderboard.tables.leaderboard import recommendation

        return writers.terminal([recommendation(self)]).rstrip("\n")


def recommend(leaderboard: Leaderboard, limits: Mapping[str, float]) -> Recommendation:
    """Return the row of highest mean that is within every limit.

    A row exceeds a limit if the whole interval of its cost does.

    Args:
        leaderboard: The leaderboard.
        limits: Bounds by cost (AXES): the lowest allowed value where more is better, otherwise the highest.

    Raises:
        UndecidedError: No row is within the limits.
        ConfigError: The metric is no measure of quality.
    """
    if is_coverage(leaderboard.metric):
        raise ConfigError(
            f"{leaderboard.metric} is the share of judged documents, which says nothing about quality; choose another "
            "metric: --metric ndcg@10"
        )
    excluded = {row.label: reason for row in leaderboard.rows if (reason := _exclusion(row, limits)) is not None}
    allowed = [row for row in leaderboard.rows if row.label not in excluded]
    if not leaderboard.common:
        raise UndecidedError("no dataset was measured with every retriever; name some: --dataset NAME --retriever NAME")
    if not allowed:
        reasons = "; ".join(f"{label}: {reason}" for label, reason in excluded.items())
        raise UndecidedError(f"no retriever is within the limits ({reasons}); relax one, or measure more retrievers")
    runner_up = allowed[1] if len(allowed) > 1 else None
    difference = leaderboard.difference(runner_up.label, allowed[0].label) if runner_up else None
    uncertain = {row.label: note for row in allowed if (note := _uncertainty(row, limits))}
    return Recommendation(leaderboard, allowed[0], runner_up, difference, excluded, uncertain)


def _exclusion(row: Row, limits: Mapping[str, float]) -> str | None:
    """Return the reason why a row is excluded; None where it is within the limits."""
    if row.mean is None:
        return "not measured on the common datasets"
    for axis, limit in limits.items():
        value = getattr(row, axis)
        if value is None:
            reason = row.gaps.get(axis)
            return f"{axis} was not measured{f': {reason}' if reason else ''}"
        if all(_is_beyond(end, axis, limit) for end in _ends(row, axis)):
            busy = f" ({_busy(row, axis)})" if axis in row.busy else ""
            return f"{axis} is {value:,.6g}, {'below' if AXES[axis] else 'above'} {limit:,g}{busy}"
    return None


def _uncertainty(row: Row, limits: Mapping[str, float]) -> str:
    """Return the limits that are inside the intervals of an allowed row's costs, and its costs of a busy machine."""
    notes = []
    for axis, limit in limits.items():
        low, high = _ends(row, axis)
        if _is_beyond(low, axis, limit) != _is_beyond(high, axis, limit):
            value = getattr(row, axis)
            notes.append(f"{axis} is {value:,.6g} ({low:,.6g} to {high:,.6g}), {limit:,g} is within its uncertainty")
        if axis in row.busy:
            notes.append(f"{axis}: {_busy(row, axis)}")
    return "; ".join(notes)


def _busy(row: Row, axis: str) -> str:
    """Return why a cost was measured while the machine was busy, and the commands that measure it again."""
    return f"measured on a busy machine: {row.busy[axis]}; to measure again: {row.refresh}"


def _ends(row: Row, axis: str) -> tuple[float, float]:
    """Return the ends of the interval of a cost; the cost itself where it has none."""
    value = getattr(row, axis)
    return row.intervals.get(axis) or (value, value)


def _is_beyond(value: float, axis: str, limit: float) -> bool:
    return value < limit if AXES[axis] else value > limit
