"""Speed and load of this machine: reference kernels, run delay, peak memory."""

import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import psutil

CLOCK_DIGITS = 9
"""Decimals of seconds: the clocks count nanoseconds, and further digits only lengthen a record."""
_STATUS = Path("/proc/self/status")
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class KernelTimes(NamedTuple):
    """Seconds of the reference kernels, by kernel, over several runs."""

    cpu_s: dict[str, float]
    """Minimum CPU seconds: the machine's speed."""
    wall_s: dict[str, float]
    """Median wall seconds: they grow with the load, because other processes take turns on the processor."""


def reference_kernels(repeats: int = 5) -> KernelTimes:
    """Time three fixed workloads: a dict loop, a BLAS product, a random gather.

    They measure the speed of this machine at this moment, which makes seconds of different runs comparable.
    """
    times = {name: [_time(kernel) for _ in range(repeats)] for name, kernel in _kernels().items()}
    return KernelTimes(
        {name: round(min(cpu_s for cpu_s, _ in samples), CLOCK_DIGITS) for name, samples in times.items()},
        {name: round(median(wall_s for _, wall_s in samples), CLOCK_DIGITS) for name, samples in times.items()},
    )


def run_delay() -> float | None:
    """Return the seconds in which this thread was ready to run but waited for a processor; None if unknown.

    Linux counts them from the start of the thread. Waiting for a lock, a disk or the network does not count.
    """
    try:
        return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes.

    On Linux this is VmHWM, which begins anew with the program; `ru_maxrss` begins with the parent's peak.
    """
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if (peak := _high_water_mark()) is not None:
        return peak
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def _high_water_mark() -> int | None:
    """Return VmHWM in bytes; None on systems without it."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)


@cache
def _kernels() -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((384, 384), dtype=np.float32)
    table = rng.standard_normal(1 << 20, dtype=np.float32)
    indices = rng.integers(0, len(table), 1 << 20)
    words = [f"w{number}" for number in rng.integers(0, 5000, 50_000)]

    def loop() -> None:
        counts: dict[str, int] = {}
        for word in words:
            counts[word] = counts.get(word, 0) + 1

    return {
        "dict_loop": loop,
        "blas_product": lambda: [matrix @ matrix for _ in range(8)],
        "random_gather": lambda: table[indices].sum(),
    }


def _time(work: Callable[[], object]) -> tuple[float, float]:
    """Return the CPU and the wall seconds of `work`."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall
