"""Cost checks: CPU seconds relative to reference kernels, peak memory and index bytes.

CPU seconds are compared only between records of one environment that used one thread: `timing=cpu1`. Wall-clock time
is never compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import geometric_mean, median

from harness.gate.findings import Finding
from harness.gate.matching import Pair
from harness.gate.policy import Policy
from harness.types import Record, Timing

QUERY, DOCUMENT, MEMORY, INDEX = "cpu/query", "cpu/document", "memory", "index bytes"
VARYING = {QUERY, DOCUMENT, MEMORY}
"""Checks whose figures vary between measurements of the same code."""


@dataclass(frozen=True)
class _Check:
    name: str
    tolerance: float
    """Allowed increase as a share of the baseline's figure."""
    figure: Callable[[Timing], float]
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
        for old, new in zip(pair.before, pair.cost_records, strict=True):
            attempts = [new, *(record for record in repeats if _is_repeat(record, new))]
            for check in _checks(policy):
                if (reason := _skip_reason(check, old, new)) is None:
                    usable = [record for record in attempts if _skip_reason(check, old, record) is None]
                    findings.append(_finding(pair, old, usable, check))
                else:
                    skipped.setdefault(f"{check.name}: {reason}", set()).add(pair.key)
    return findings, [f"{note} ({len(keys)} of {len(pairs)} evaluations)" for note, keys in skipped.items()]


def cpu_per_query(timing: Timing) -> float:
    """Return the CPU seconds of a query in units of the reference kernels' time: the median over the repeats."""
    units = [_unit(timing, repeat + 1) for repeat in range(len(timing.searches))]
    return median(search.cpu_s / unit for search, unit in zip(timing.searches, units, strict=True)) / timing.queries


def cpu_per_document(timing: Timing) -> float:
    """Return the CPU seconds of indexing a document, encoding included, in the same units."""
    return timing.index.cpu_s / _unit(timing, 0) / timing.documents


def _unit(timing: Timing, phase: int) -> float:
    """Return the geometric mean of the kernels' CPU seconds, timed before and after a phase."""
    samples = timing.references[phase : phase + 2]
    return geometric_mean(seconds for kernels in samples for seconds in kernels.values())


def _is_repeat(record: Record, newest: Record) -> bool:
    return record.status == "ok" and (
        (record.id, record.code, record.environment, record.retriever.label, record.dataset.name)
        == (newest.id, newest.code, newest.environment, newest.retriever.label, newest.dataset.name)
    )


def _finding(pair: Pair, old: Record, attempts: Sequence[Record], check: _Check) -> Finding:
    """Compare the lowest of several measurements: the one that other work on the machine disturbed the least."""
    before = check.figure(_timing(old))
    after = min(check.figure(_timing(record)) for record in attempts)
    return Finding(
        "fail" if after > before * (1 + check.tolerance) else "pass",
        pair.retriever,
        old.dataset.label,
        check.name,
        before=before,
        after=after,
        limit=1 + check.tolerance,
        message=f"least of {len(attempts)} measurements" if len(attempts) > 1 else "",
        command=attempts[0].command,
    )


def _timing(record: Record) -> Timing:
    assert record.timing is not None  # noqa: S101  (a compared record has a timing)
    return record.timing


def _checks(policy: Policy) -> list[_Check]:
    checks = [
        (QUERY, policy.cpu, cpu_per_query, _no_cpu),
        (DOCUMENT, policy.cpu, cpu_per_document, _no_index_cpu),
        (MEMORY, policy.memory, lambda timing: float(timing.peak_memory_bytes or 0), _no_memory),
        (INDEX, policy.index_bytes, lambda timing: float(timing.index_bytes), _no_timing),
    ]
    return [_Check(name, share, figure, reason) for name, share, figure, reason in checks if share is not None]


def _skip_reason(check: _Check, old: Record, new: Record) -> str | None:
    if (reason := _no_timing(old, new) or check.skip_reason(old, new)) is not None:
        return reason
    was, now = (check.figure(_timing(record)) for record in (old, new))
    return None if was > 0 and isfinite(was) and isfinite(now) else "the baseline's figure is 0"


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
        timing = _timing(record)
        if timing.threads != 1:
            return f"measured with {timing.threads} threads; one is needed: timing=cpu1"
        kernels = [seconds for sample in timing.references for seconds in sample.values()]
        if len(timing.references) != len(timing.searches) + 2 or not all(seconds > 0 for seconds in kernels):
            return "the reference kernels were not timed in the same run; measure again: resume=false"
        if not timing.queries or not timing.documents:
            return "it has no queries or no documents"
    return None


def _no_index_cpu(old: Record, new: Record) -> str | None:
    if (reason := _no_cpu(old, new)) is not None:
        return reason
    if any(_timing(record).index.cached_s or _timing(record).index.foreign_machine for record in (old, new)):
        return "the embeddings were cached"
    return None
