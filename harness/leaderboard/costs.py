"""Costs of the leaderboard's rows with their uncertainty, and the Pareto fronts of quality and cost."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import NamedTuple

from harness.leaderboard.model import AXES, Row
from harness.leaderboard.table import HEADINGS
from harness.types import Record, Timing, load
from harness.types.intervals import Interval, Quantile, sum_interval, weighted_quantile

_LATENCY_SHARE = 0.95
_EXTERNAL_INDEX = "it searches an index of its own"
_NO_SEARCH_TIME = "it has no queries, or no time was measured for its searches"
_NO_INDEX_TIME = "it has no documents, or no time was measured for indexing"
_FOREIGN = (
    "embeddings were computed on another machine or with other packages; to encode here, add --refresh to the command"
)


class _Measured(NamedTuple):
    """A record that was timed, and its timing."""

    record: Record
    timing: Timing


def add_costs(row: Row, records: Sequence[Record]) -> Row:
    """Return the `row` with its costs over the `records`; without costs if one of them was not timed."""
    measured = [_Measured(record, record.timing) for record in records if record.timing is not None]
    if len(measured) < len(records) or not measured:
        return row
    timings = [timing for _, timing in measured]
    latency = weighted_quantile([timing.latencies_s for timing in timings], _LATENCY_SHARE)
    n_latencies = sum(len(timing.latencies_s) for timing in timings)
    gaps = _gaps(measured, n_latencies, latency is not None)
    busy = _busy(measured, gaps)
    environments = {record.environment for record in records}
    threads = {timing.threads for timing in timings}
    return replace(
        row,
        queries_per_s=None if "queries_per_s" in gaps else _throughput(timings, "queries_per_s"),
        docs_per_s=None if "docs_per_s" in gaps else _throughput(timings, "docs_per_s"),
        latency_ms=latency.value * 1e3 if latency else None,
        index_mb=None if "index_mb" in gaps else max(timing.index_bytes for timing in timings) / 1e6,
        environment=environments.pop() if len(environments) == 1 else None,
        threads=threads.pop() if len(threads) == 1 else None,
        intervals={**_intervals(timings, gaps), **_latency_interval(latency)},
        samples={**_samples(timings, gaps), **({"latency_ms": n_latencies} if latency else {})},
        busy=busy,
        refresh=_commands([record for record, timing in measured if timing.busy.keys() & busy.keys()]) if busy else "",
        gaps=gaps,
    )


def refresh_command(record: Record) -> str:
    """Return the command that measures a record again; empty if no command measures it."""
    command = re.sub(r" resume=\w+", "", record.command)
    return f"{command} --refresh" if command else ""


def cost_remarks(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return remarks on missing costs, cached time and a busy machine, each with the labels of its rows."""
    remarks: dict[str, list[str]] = {}
    for row in rows:
        for remark in (*_gap_remarks(row), *_cached_remarks(row), *_busy_remarks(row)):
            remarks.setdefault(remark, []).append(row.label)
    return remarks


def mark_fronts(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the costs on which each is on the Pareto front of its environment and number of threads."""
    fronts: dict[str, set[str]] = {row.label: set() for row in rows}
    for axis in AXES:
        for setting in {(row.environment, row.threads) for row in rows}:
            for label in _front([row for row in rows if (row.environment, row.threads) == setting], axis):
                fronts[label].add(axis)
    return [replace(row, front=frozenset(fronts[row.label])) for row in rows]


class _Point(NamedTuple):
    """Quality and cost of a row; the cost is signed so that more is better."""

    label: str
    mean: float
    low: float
    high: float

    def dominates(self, other: "_Point") -> bool:
        """Return True if the other is no better in quality and worse in cost, beyond the overlap of the intervals."""
        if self.mean == other.mean:
            return self.low > other.high
        return self.mean > other.mean and self.low >= other.high


def _front(rows: Sequence[Row], axis: str) -> list[str]:
    """Return the labels of the rows that no other row dominates in quality and cost; none if there is only one row."""
    points = [point for row in rows if (point := _point(row, axis)) is not None]
    if len(points) < 2:
        return []
    return [point.label for point in points if not any(other.dominates(point) for other in points)]


def _point(row: Row, axis: str) -> _Point | None:
    """Return quality and cost of a row; None where one is missing."""
    cost = getattr(row, axis)
    if row.mean is None or cost is None or row.environment is None or row.threads is None:
        return None
    low, high = row.intervals.get(axis) or (cost, cost)
    return _Point(row.label, row.mean, low, high) if AXES[axis] else _Point(row.label, row.mean, -high, -low)


def _amount(timing: Timing, axis: str) -> int:
    return timing.queries if axis == "queries_per_s" else timing.documents


def _seconds(timing: Timing, axis: str) -> float:
    """Return the seconds in which all queries are searched, or all documents are indexed."""
    return timing.queries / (timing.queries_per_s or inf) if axis == "queries_per_s" else timing.index.wall_s


def _throughput(timings: Sequence[Timing], axis: str) -> float:
    return sum(_amount(timing, axis) for timing in timings) / sum(_seconds(timing, axis) for timing in timings)


def _intervals(timings: Sequence[Timing], gaps: Mapping[str, str]) -> dict[str, Interval]:
    """Return the intervals of the throughputs; a throughput over several datasets needs an interval on each."""
    intervals: dict[str, Interval] = {}
    for axis in ("queries_per_s", "docs_per_s"):
        ends = [timing.intervals[axis] for timing in timings]
        amounts = [_amount(timing, axis) for timing in timings]
        seconds = [
            Interval(amount / rate.high, amount / rate.low)
            for amount, rate in zip(amounts, ends, strict=True)
            if rate is not None
        ]
        if axis not in gaps and len(seconds) == len(timings):
            total = sum_interval([_seconds(timing, axis) for timing in timings], seconds)
            intervals[axis] = Interval(sum(amounts) / total.high, sum(amounts) / total.low)
    return intervals


def _latency_interval(latency: Quantile | None) -> dict[str, Interval]:
    if latency is None:
        return {}
    return {"latency_ms": Interval(latency.interval.low * 1e3, latency.interval.high * 1e3)}


def _samples(timings: Sequence[Timing], gaps: Mapping[str, str]) -> dict[str, int]:
    """Return the smallest number of samples of each throughput on any dataset."""
    return {
        axis: min(timing.samples[axis] for timing in timings)
        for axis in ("queries_per_s", "docs_per_s")
        if axis not in gaps
    }


def _gaps(measured: Sequence[_Measured], n_latencies: int, has_latency: bool) -> dict[str, str]:
    """Return the reasons why costs are missing."""
    gaps: dict[str, str] = {}
    if any(timing.externally_indexed for _, timing in measured):
        gaps = {"docs_per_s": _EXTERNAL_INDEX, "index_mb": _EXTERNAL_INDEX}
    if any(timing.index.foreign_machine for _, timing in measured) and "docs_per_s" not in gaps:
        gaps["docs_per_s"] = _FOREIGN
    if "docs_per_s" not in gaps and any(timing.docs_per_s is None for _, timing in measured):
        gaps["docs_per_s"] = _NO_INDEX_TIME
    if any(timing.queries_per_s is None for _, timing in measured):
        gaps["queries_per_s"] = _NO_SEARCH_TIME
    if n_latencies and not has_latency:
        gaps["latency_ms"] = (
            f"{n_latencies} searches of single queries are too few for a 95th percentile; 59 on each dataset are enough"
        )
    return gaps


def _busy(measured: Sequence[_Measured], gaps: Mapping[str, str]) -> dict[str, str]:
    """Return by cost the reason why the first of the records with one was measured while the machine was busy."""
    reasons: dict[str, str] = {}
    for _, timing in measured:
        reasons = {**timing.busy, **reasons}
    return {axis: reasons[axis] for axis in AXES if axis in reasons and axis not in gaps}


def _commands(records: Sequence[Record]) -> str:
    """Return the commands that measure the records again."""
    commands = [command for record in records if (command := refresh_command(record))]
    return "; ".join(commands) or "evaluate with resume=False"


def _gap_remarks(row: Row) -> Iterator[str]:
    """Yield a remark for each reason why a cost is missing."""
    for reason in dict.fromkeys(row.gaps.values()):
        names = " and ".join(HEADINGS[axis] for axis in row.gaps if row.gaps[axis] == reason)
        yield f"No {names}, because {reason}"


def _busy_remarks(row: Row) -> Iterator[str]:
    """Yield a remark on the costs that were measured while the machine was busy."""
    names: dict[str, list[str]] = {}
    for axis, reason in row.busy.items():
        names.setdefault(reason, []).append(HEADINGS[axis])
    if names:
        reasons = "; ".join(f"{', '.join(axes)}: {reason}" for reason, axes in names.items())
        yield f"~ measured on a busy machine ({reasons}); to measure again: {row.refresh}"


def _cached_remarks(row: Row) -> Iterator[str]:
    """Yield a remark on the cached time in docs/s: its date, and the load of the machine at that time."""
    if row.docs_per_s is None or row.overall is None:
        return
    timings = [record.timing for record in row.overall.records if record.timing and record.timing.index.cached_s]
    if not timings:
        return
    dates = [timing.index.cached_since for timing in timings]
    since = None if None in dates else min(filter(None, dates))
    shares = [load.lost_share([timing.index], timing.threads) for timing in timings]
    if any(map(load.describe_lost, shares)):
        machine = "a busy machine"
    else:
        machine = "a machine of unknown load" if None in shares else "an idle machine"
    when = f"{since:%Y-%m-%d %H:%M} UTC" if since else "an unknown time"
    yield f"docs/s includes cached time, measured at {when} on {machine}; --refresh measures it again"
