"""What rows cost, and which of them no other beats in both quality and cost."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.leaderboard.model import AXES, Row
from harness.types import Record


def costed(row: Row, records: Sequence[Record]) -> Row:
    """The row with its costs over some records; a gap where a cell was not timed."""
    timings = [record.timing for record in records if record.timing is not None]
    if len(timings) < len(records) or not timings:
        return row
    queries, documents = sum(timing.queries for timing in timings), sum(timing.documents for timing in timings)
    searching = sum(timing.queries / timing.queries_per_s for timing in timings)
    indexing = sum(timing.index.wall_s for timing in timings)
    latencies = [seconds for timing in timings for seconds in timing.latencies_s]
    environments = {record.environment for record in records}
    threads = {timing.threads for timing in timings}
    return replace(
        row,
        queries_per_s=queries / searching,
        docs_per_s=None if any(timing.index.foreign_machine for timing in timings) else documents / indexing,
        latency_ms=float(np.percentile(latencies, 95)) * 1e3 if latencies else None,
        index_mb=max(timing.index_bytes for timing in timings) / 1e6,
        environment=environments.pop() if len(environments) == 1 else None,
        threads=threads.pop() if len(threads) == 1 else None,
    )


def with_fronts(rows: Sequence[Row]) -> list[Row]:
    """Each row with the costs on which it is on the Pareto front of its environment and number of threads."""
    fronts: dict[str, set[str]] = {row.label: set() for row in rows}
    for axis in AXES:
        for place in {(row.environment, row.threads) for row in rows}:
            for label in _front([row for row in rows if (row.environment, row.threads) == place], axis):
                fronts[label].add(axis)
    return [replace(row, front=frozenset(fronts[row.label])) for row in rows]


def _front(rows: Sequence[Row], axis: str) -> list[str]:
    """Labels of the rows that no other equals or beats in both quality and cost, and beats in one; none of one row."""
    points = [(*point, row.label) for row in rows if (point := _point(row, axis)) is not None]
    found: list[tuple[float, float, str]] = []
    for one in sorted(points, key=lambda own: (-own[0], -own[1])):
        if not found or one[1] > found[-1][1] or one[:2] == found[-1][:2]:
            found.append(one)
    return [label for _, _, label in found] if len(points) > 1 else []


def _point(row: Row, axis: str) -> tuple[float, float] | None:
    """Quality and cost, both more is better; None where one is missing."""
    cost = getattr(row, axis)
    if row.mean is None or cost is None or row.environment is None or row.threads is None:
        return None
    return row.mean, cost if AXES[axis] else -cost
