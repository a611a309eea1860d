"""Detection of a busy machine from the times of an evaluation.

Two signals are used. The run delay is the time in which the work was ready to run while other processes had the
processor; a retriever that waits for a lock or the network has none. The reference kernels are fixed workloads: on a
busy machine they take longer than before, or longer than their CPU time.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

MAX_LOST = 0.1
"""Share of the wall time that other processes may have taken from the work."""
MAX_SLOWDOWN = 1.5
"""Ratio of a kernel's CPU seconds to its fastest in the same evaluation."""
MAX_STRETCH = 1.3
"""Ratio of the kernels' wall seconds to their CPU seconds."""
_MAX_SLOW_SAMPLES = 0.1
"""Share of the kernels' samples that may be slow, so that one brief disturbance among many repeats does not count."""
_SINGLE_THREADED = ("dict_loop", "random_gather")
"""Kernels that run on one thread; the CPU seconds of a BLAS product include the waits of its threads."""


class Work(Protocol):
    """Protocol for the times of a phase."""

    @property
    def wall_s(self) -> float:
        """Wall seconds."""
        ...

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all threads."""
        ...

    @property
    def run_delay_s(self) -> float | None:
        """Seconds in which the measuring thread was ready to run but waited for a processor."""
        ...


def lost_share(phases: Sequence[Work], threads: int) -> float | None:
    """Return the share of the wall time of `phases` that other processes took from the work; None if unknown.

    It is at most the share that the work left unused of its `threads`: work that uses all of them may delay itself.
    """
    wall = sum(phase.wall_s for phase in phases)
    delays = [phase.run_delay_s for phase in phases if phase.run_delay_s is not None]
    if len(delays) < len(phases) or not wall > 0:
        return None
    unused = 1 - sum(phase.cpu_s for phase in phases) / (wall * threads)
    return max(0.0, min(sum(delays) / wall, unused))


def delayed_share(delay_s: float | None, wall_s: float) -> float | None:
    """Return the share of `wall_s` seconds that `delay_s`, the run delay, is; None if unknown."""
    return delay_s / wall_s if delay_s is not None and wall_s > 0 else None


def describe_lost(share: float | None) -> str:
    """Return the reason to call the machine busy; empty if it is not known to be."""
    return f"other processes took {share:.0%} of the time" if share is not None and share > MAX_LOST else ""


def describe_slow_kernels(cpu_s: Sequence[Mapping[str, float]], wall_s: Sequence[Mapping[str, float]]) -> str:
    """Return why the reference kernels show a busy machine; empty if they do not.

    Args:
        cpu_s: CPU seconds by kernel, of each sample.
        wall_s: Wall seconds by kernel, of each sample; empty if they were not stored.
    """
    samples = [{name: sample[name] for name in _SINGLE_THREADED if name in sample} for sample in cpu_s]
    names = [name for name in _SINGLE_THREADED if samples and all(sample.get(name, 0) > 0 for sample in samples)]
    for name in names:
        fastest = min(sample[name] for sample in samples)
        slowdowns = [sample[name] / fastest for sample in samples]
        if _are_many(slowdowns, MAX_SLOWDOWN):
            return f"the same work took up to {max(slowdowns):.1f} times as long"
    walls = [sample for sample in wall_s if all(name in sample for name in names)]
    if names and len(walls) == len(samples):
        pairs = zip(samples, walls, strict=True)
        stretches = [sum(wall[name] for name in names) / sum(cpu[name] for name in names) for cpu, wall in pairs]
        if _are_many(stretches, MAX_STRETCH):
            return f"work of one thread waited up to {1 - 1 / max(stretches):.0%} of the time"
    return ""


def _are_many(ratios: Sequence[float], limit: float) -> bool:
    """Return True if more than a tenth of the samples are above the limit."""
    return sum(ratio > limit for ratio in ratios) > _MAX_SLOW_SAMPLES * len(ratios)
