"""Cost checks: CPU and wall-clock time relative to reference kernels, peak memory and index bytes.

A figure fails above `limit` times the baseline's:

    limit = floor * (1 + tolerance + min(tolerance, 2 * sqrt(spread_before^2 + spread_after^2)))

- `tolerance` is the policy's.
- `spread` is the relative standard deviation, from the median absolute deviation, of the repeats of the search and of
  the reference kernels within one evaluation, whichever is larger.
- `floor = max(1, shortest / seconds)`, where `seconds` is the time of the baseline's phase, over all repeats, and
  `shortest = resolution / tolerance`, the time of a phase whose allowed increase is the policy's resolution: a phase
  that is too short to be timed counts as one of that time. If both sides are shorter, there is no verdict.

CPU seconds are compared between records of one environment that used one thread: `timing=cpu1`. Wall-clock time, which
a retriever that sleeps or waits for a lock or a network spends without the CPU, has a tolerance wide enough for other
work on the machine; in another environment it is a warning.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, isfinite
from statistics import geometric_mean, median
from typing import NamedTuple

import numpy as np

from harness.gate.findings import DOCUMENT, INDEX, LATENCY, MEMORY, QUERY, WALL_DOCUMENT, WALL_QUERY, Finding, Status
from harness.gate.matching import Pair
from harness.gate.policy import Policy
from harness.types import Record, Timing
from harness.types.intervals import quantile_interval

VARYING = {QUERY, DOCUMENT, WALL_QUERY, WALL_DOCUMENT, LATENCY, MEMORY}
"""Checks whose figures vary between measurements of the same code."""
Kernels = Sequence[Mapping[str, float]]
"""Samples of the reference kernels' seconds, by kernel."""
_WALL = (WALL_QUERY, WALL_DOCUMENT, LATENCY)
_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution relative to its median absolute deviation."""


class CostFigure(NamedTuple):
    """A cost, and the certainty with which it was measured."""

    value: float
    seconds: float | None = None
    """Time that the timed phase took; None for a cost that is not a time."""
    spread: float = 0.0
    """Relative standard deviation of its samples."""


@dataclass(frozen=True)
class _Check:
    name: str
    tolerance: float
    """Allowed increase as a share of the baseline's figure."""
    figure: Callable[[Timing], CostFigure]
    skip_reason: Callable[[Record, Record], str | None]


def check_costs(pairs: Sequence[Pair], repeats: Sequence[Record], policy: Policy) -> tuple[list[Finding], list[str]]:
    """Compare the costs of every pair.

    Args:
        pairs: Evaluations of the baseline with their newest records.
        repeats: Further measurements of some of the evaluations.
        policy: Allowed increases.

    Returns:
        Findings, and a note for each reason why evaluations were skipped.
    """
    findings: list[Finding] = []
    skipped: dict[str, set[tuple[str, str]]] = {}
    for pair in pairs:
        for accepted, newest in zip(pair.before, pair.cost_records, strict=True):
            attempts = [newest, *(record for record in repeats if _is_repeat(record, newest))]
            old, *attempts = _with_equal_units([accepted, *attempts])
            new = attempts[0]
            for check in _checks(policy):
                if (reason := _skip_reason(check, old, new, policy.resolution)) is None:
                    usable = [
                        record for record in attempts if _skip_reason(check, old, record, policy.resolution) is None
                    ]
                    findings.append(_finding(pair, old, usable, check, policy.resolution))
                else:
                    skipped.setdefault(f"{check.name}: {reason}", set()).add(pair.key)
    return findings, [f"{note} ({len(keys)} of {len(pairs)} evaluations)" for note, keys in skipped.items()]


def cpu_per_query(timing: Timing) -> CostFigure:
    """Return the CPU seconds of a query in units of the reference kernels' time: the median over the repeats."""
    return _per_query(timing, [search.cpu_s for search in timing.searches], timing.references)


def wall_per_query(timing: Timing) -> CostFigure:
    """Return the wall seconds of a query in the same units: the median over the repeats."""
    return _per_query(timing, [search.wall_s for search in timing.searches], _wall_references(timing))


def cpu_per_document(timing: Timing) -> CostFigure:
    """Return the CPU seconds of indexing a document, encoding included, in the same units."""
    return _per_document(timing, timing.index.cpu_s, timing.references)


def wall_per_document(timing: Timing) -> CostFigure:
    """Return the wall seconds of indexing a document, encoding included, in the same units."""
    return _per_document(timing, timing.index.wall_s, _wall_references(timing))


def latency(timing: Timing) -> CostFigure:
    """Return the 95th percentile of the latency of a query searched alone, in the same units.

    It is compared where both sides have the 59 searches that a confidence interval of it needs.
    """
    kernels = _wall_references(timing)
    percentile = float(np.percentile(timing.latencies_s, 95))
    return CostFigure(percentile / _unit(kernels[-1:]), sum(timing.latencies_s), _kernel_spread(kernels))


def _with_equal_units(records: Sequence[Record]) -> list[Record]:
    """Return the records, without the kernels' wall seconds unless all have them.

    Wall seconds are in units of the kernels' wall seconds or, if a record lacks them, of their CPU seconds.
    """
    timings = [record.timing for record in records if record.timing is not None]
    if all(timing.reference_walls for timing in timings):
        return [*records]
    return [
        record.model_copy(update={"timing": record.timing and record.timing.model_copy(update={"reference_walls": []})})
        for record in records
    ]


def _wall_references(timing: Timing) -> Kernels:
    """Return the samples of the kernels that are the unit of wall seconds, see `_with_equal_units`."""
    return timing.reference_walls or timing.references


def _per_query(timing: Timing, seconds: Sequence[float], kernels: Kernels) -> CostFigure:
    # the first sample is timed before the index; those before and after a search are its unit
    in_units = [each / _unit(kernels[repeat + 1 : repeat + 3]) for repeat, each in enumerate(seconds)]
    spread = max(_spread(in_units), _kernel_spread(kernels))
    return CostFigure(median(in_units) / timing.queries, sum(seconds), spread)


def _per_document(timing: Timing, seconds: float, kernels: Kernels) -> CostFigure:
    return CostFigure(seconds / _unit(kernels[:2]) / timing.documents, seconds, _kernel_spread(kernels))


def _unit(kernels: Kernels) -> float:
    """Return the geometric mean of the kernels' seconds over several samples."""
    return geometric_mean(seconds for sample in kernels for seconds in sample.values())


def _kernel_spread(kernels: Kernels) -> float:
    """Return the spread of the kernels' time over an evaluation."""
    return _spread([geometric_mean(sample.values()) for sample in kernels])


def _spread(samples: Sequence[float]) -> float:
    """Return the relative standard deviation of samples, estimated from their median absolute deviation."""
    middle = median(samples)
    return _TO_DEVIATION * median(abs(sample - middle) for sample in samples) / middle if middle else 0.0


def _is_repeat(record: Record, newest: Record) -> bool:
    return record.status == "ok" and (
        (record.id, record.code, record.environment, record.retriever.label, record.dataset.name)
        == (newest.id, newest.code, newest.environment, newest.retriever.label, newest.dataset.name)
    )


def _finding(pair: Pair, old: Record, attempts: Sequence[Record], check: _Check, resolution: float) -> Finding:
    """Compare the lowest of several measurements: the one that other work on the machine disturbed the least."""
    before = check.figure(_timing(old))
    after = min((check.figure(_timing(record)) for record in attempts), key=lambda figure: figure.value)
    limit = _limit(before, after, check.tolerance, resolution)
    is_foreign = old.environment != attempts[0].environment
    messages = [f"least of {len(attempts)} measurements"] if len(attempts) > 1 else []
    messages += ["in another environment"] if is_foreign and check.name in _WALL else []
    exceeded: Status = "warn" if is_foreign and check.name in _WALL else "fail"
    return Finding(
        exceeded if after.value > before.value * limit else "pass",
        pair.retriever,
        old.dataset.label,
        check.name,
        before=before.value,
        after=after.value,
        limit=limit,
        message=", ".join(messages),
        command=attempts[0].command,
    )


def _limit(before: CostFigure, after: CostFigure, tolerance: float, resolution: float) -> float:
    """Return the largest allowed ratio of two figures, by the formula at the top of this module."""
    floor = max(1.0, resolution / tolerance / before.seconds) if before.seconds else 1.0
    return floor * (1 + tolerance + min(tolerance, 2 * hypot(before.spread, after.spread)))


def _timing(record: Record) -> Timing:
    assert record.timing is not None  # noqa: S101  (a compared record has a timing)
    return record.timing


def _checks(policy: Policy) -> list[_Check]:
    checks = [
        (QUERY, policy.cpu, cpu_per_query, _no_cpu),
        (DOCUMENT, policy.cpu, cpu_per_document, _no_index_cpu),
        (WALL_QUERY, policy.wall, wall_per_query, _no_wall),
        (WALL_DOCUMENT, policy.wall, wall_per_document, _no_index_wall),
        (LATENCY, policy.wall, latency, _no_latency),
        (MEMORY, policy.memory, lambda timing: CostFigure(float(timing.peak_memory_bytes or 0)), _no_memory),
        (INDEX, policy.index_bytes, lambda timing: CostFigure(float(timing.index_bytes)), _no_timing),
    ]
    return [_Check(name, share, figure, reason) for name, share, figure, reason in checks if share is not None]


def _skip_reason(check: _Check, old: Record, new: Record, resolution: float) -> str | None:
    if (reason := _no_timing(old, new) or check.skip_reason(old, new)) is not None:
        return reason
    was, now = (check.figure(_timing(record)) for record in (old, new))
    if not (was.value > 0 and isfinite(was.value) and isfinite(now.value)):
        return "the baseline's figure is 0"
    shortest = resolution / check.tolerance
    if was.seconds is not None and max(was.seconds, now.seconds or 0.0) < shortest:
        return f"too short to tell, less than {shortest:g} s"
    return None


def _no_timing(old: Record, new: Record) -> str | None:
    return "not timed" if old.timing is None or new.timing is None else None


def _no_memory(old: Record, new: Record) -> str | None:
    if old.environment != new.environment:
        return "measured in another environment"
    if _timing(old).peak_memory_bytes is None or _timing(new).peak_memory_bytes is None:
        return "measured only in a separate process that encodes anew: timing=cpu1"
    return None


def _no_cpu(old: Record, new: Record) -> str | None:
    if old.environment != new.environment:
        return "measured in another environment"
    for record in (old, new):
        threads = _timing(record).threads
        if threads != 1:
            return f"measured with {threads} threads; one is needed: timing=cpu1"
    return _no_units(old, new)


def _no_wall(old: Record, new: Record) -> str | None:
    threads = _timing(old).threads, _timing(new).threads
    if threads[0] != threads[1]:
        return f"measured with {threads[0]} and {threads[1]} threads"
    return _no_units(old, new)


def _no_units(old: Record, new: Record) -> str | None:
    for record in (old, new):
        timing = _timing(record)
        kernels = [seconds for sample in timing.references for seconds in sample.values()]
        if len(timing.references) != len(timing.searches) + 2 or not all(seconds > 0 for seconds in kernels):
            return "the reference kernels were not timed in the same run; measure again: resume=false"
        if not timing.queries or not timing.documents:
            return "it has no queries or no documents"
    return None


def _no_index_cpu(old: Record, new: Record) -> str | None:
    return _no_cpu(old, new) or _cached(old, new)


def _no_index_wall(old: Record, new: Record) -> str | None:
    return _no_wall(old, new) or _cached(old, new)


def _no_latency(old: Record, new: Record) -> str | None:
    if not all(_timing(record).latencies_s for record in (old, new)):
        return "no query was searched alone: timing.latency_queries=100"
    for record in (old, new):
        if quantile_interval(_timing(record).latencies_s, 0.95) is None:
            return f"{len(_timing(record).latencies_s)} searches are too few for it: timing.latency_queries=100"
    return _no_wall(old, new)


def _cached(old: Record, new: Record) -> str | None:
    if any(_timing(record).index.cached_s or _timing(record).index.foreign_machine for record in (old, new)):
        return "the embeddings were cached"
    return None
