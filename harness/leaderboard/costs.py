"""Costs of the leaderboard's rows, and the Pareto fronts of quality and cost."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harness.leaderboard.model import AXES, Row
from harness.types import Record


def add_costs(row: Row, records: Sequence[Record]) -> Row:
    """Return the `row` with its costs over the `records`; without costs if one of them was not timed."""
    timings = [record.timing for record in records if record.timing is not None]
    if len(timings) < len(records) or not timings:
        return row
    queries, documents = sum(timing.queries for timing in timings), sum(timing.documents for timing in timings)
    search_s = sum(timing.queries / timing.queries_per_s for timing in timings)
    index_s = sum(timing.index.wall_s for timing in timings)
    latencies = [seconds for timing in timings for seconds in timing.latencies_s]
    environments = {record.environment for record in records}
    threads = {timing.threads for timing in timings}
    return replace(
        row,
        queries_per_s=queries / search_s,
        docs_per_s=None if any(timing.index.foreign_machine for timing in timings) else documents / index_s,
        latency_ms=float(np.percentile(latencies, 95)) * 1e3 if latencies else None,
        index_mb=max(timing.index_bytes for timing in timings) / 1e6,
        environment=environments.pop() if len(environments) == 1 else None,
        threads=threads.pop() if len(threads) == 1 else None,
    )


def mark_fronts(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the costs on which each is on the Pareto front of its environment and number of threads."""
    fronts: dict[str, set[str]] = {row.label: set() for row in rows}
    for axis in AXES:
        for setting in {(row.environment, row.threads) for row in rows}:
            for label in _front([row for row in rows if (row.environment, row.threads) == setting], axis):
                fronts[label].add(axis)
    return [replace(row, front=frozenset(fronts[row.label])) for row in rows]


def _front(rows: Sequence[Row], axis: str) -> list[str]:
    """Return the labels of the rows that no other row dominates in quality and cost; none if there is only one row."""
    points = [(*point, row.label) for row in rows if (point := _point(row, axis)) is not None]
    front: list[tuple[float, float, str]] = []
    for candidate in sorted(points, key=lambda candidate: (-candidate[0], -candidate[1])):
        if not front or candidate[1] > front[-1][1] or candidate[:2] == front[-1][:2]:
            front.append(candidate)
    return [label for _, _, label in front] if len(points) > 1 else []


def _point(row: Row, axis: str) -> tuple[float, float] | None:
    """Return quality and cost, signed so that more is better; None where one is missing."""
    cost = getattr(row, axis)
    if row.mean is None or cost is None or row.environment is None or row.threads is None:
        return None
    return row.mean, cost if AXES[axis] else -cost
