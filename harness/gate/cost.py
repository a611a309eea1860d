"""Did a cell become dearer? CPU seconds over the reference kernels', peak memory, bytes of the index.

CPU seconds are compared only between records of one environment that took one thread: `timing=cpu1`. Wall clock is
never compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import geometric_mean, median

from harness.gate.cells import Pair
from harness.gate.findings import Finding
from harness.gate.policy import Policy
from harness.types import Record, Timing

QUERY, DOCUMENT, MEMORY, INDEX = "cpu/query", "cpu/document", "memory", "index bytes"
VARYING = {QUERY, DOCUMENT, MEMORY}
"""What differs from one measurement of the same code to the next."""


@dataclass(frozen=True)
class _Check:
    name: str
    share: float
    figure: Callable[[Timing], float]
    why_not: Callable[[Record, Record], str | None]


def cost(pairs: Sequence[Pair], again: Sequence[Record], policy: Policy) -> tuple[list[Finding], list[str]]:
    """The findings, and why some cells were not gated. `again` are further measurements of some of the cells."""
    found: list[Finding] = []
    skipped: dict[str, set[tuple[str, str]]] = {}
    for pair in pairs:
        for old, new in zip(pair.before, pair.costs, strict=True):
            tries = [new, *(record for record in again if _same(record, new))]
            for check in _checks(policy):
                if (why := _why_not(check, old, new)) is None:
                    kept = [record for record in tries if _why_not(check, old, record) is None]
                    found.append(_finding(pair, old, kept, check))
                else:
                    skipped.setdefault(f"{check.name}: {why}", set()).add(pair.key)
    return found, [f"{what} ({len(cells)} of {len(pairs)} cells)" for what, cells in skipped.items()]


def per_query(timing: Timing) -> float:
    """CPU seconds of a query in units of the reference kernels' time: the median over the repeats."""
    units = [_unit(timing, place + 1) for place in range(len(timing.searches))]
    return median(one.cpu_s / unit for one, unit in zip(timing.searches, units, strict=True)) / timing.queries


def per_document(timing: Timing) -> float:
    """CPU seconds of a document, encoding included, in the same units."""
    return timing.index.cpu_s / _unit(timing, 0) / timing.documents


def _unit(timing: Timing, place: int) -> float:
    """Geometric mean of the kernels' CPU seconds, timed before and after a phase."""
    around = timing.references[place : place + 2]
    return geometric_mean(seconds for kernels in around for seconds in kernels.values())


def _same(record: Record, newest: Record) -> bool:
    return record.status == "ok" and (
        (record.id, record.code, record.environment, record.retriever.label, record.dataset.name)
        == (newest.id, newest.code, newest.environment, newest.retriever.label, newest.dataset.name)
    )


def _finding(pair: Pair, old: Record, tries: Sequence[Record], check: _Check) -> Finding:
    """The least of several measurements is the one that other work on the machine disturbed the least."""
    before = check.figure(_timing(old))
    after = min(check.figure(_timing(record)) for record in tries)
    return Finding(
        "fail" if after > before * (1 + check.share) else "pass",
        pair.retriever,
        old.dataset.label,
        check.name,
        before=before,
        after=after,
        limit=1 + check.share,
        said=f"least of {len(tries)} measurements" if len(tries) > 1 else "",
        command=tries[0].command,
    )


def _timing(record: Record) -> Timing:
    assert record.timing is not None  # noqa: S101  (a record that is compared has one)
    return record.timing


def _checks(policy: Policy) -> list[_Check]:
    checks = [
        (QUERY, policy.cpu, per_query, _no_cpu),
        (DOCUMENT, policy.cpu, per_document, _no_index_cpu),
        (MEMORY, policy.memory, lambda timing: float(timing.peak_memory_bytes or 0), _no_memory),
        (INDEX, policy.index_bytes, lambda timing: float(timing.index_bytes), _no_timing),
    ]
    return [_Check(name, share, figure, why) for name, share, figure, why in checks if share is not None]


def _why_not(check: _Check, old: Record, new: Record) -> str | None:
    if (why := _no_timing(old, new) or check.why_not(old, new)) is not None:
        return why
    was, now = (check.figure(_timing(record)) for record in (old, new))
    return None if was > 0 and isfinite(was) and isfinite(now) else "the baseline's figure is 0"


def _no_timing(old: Record, new: Record) -> str | None:
    return "not timed" if old.timing is None or new.timing is None else None


def _no_memory(old: Record, new: Record) -> str | None:
    if old.environment != new.environment:
        return "measured in another environment"
    if _timing(old).peak_memory_bytes is None or _timing(new).peak_memory_bytes is None:
        return "only known of a process of its own that encoded anew: timing=cpu1"
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
            return "the reference kernels were not timed beside it; measure again: resume=false"
        if not timing.queries or not timing.documents:
            return "it has no queries or no documents"
    return None


def _no_index_cpu(old: Record, new: Record) -> str | None:
    if (why := _no_cpu(old, new)) is not None:
        return why
    if any(_timing(record).index.cached_s or _timing(record).index.foreign_machine for record in (old, new)):
        return "the vectors were encoded earlier"
    return None
