"""Stages, wall and CPU seconds, peak memory and reference kernels. A retriever names its stages; the runner times.

with recording() as seen, stage("encode", total=len(texts)) as step:
    step(32); count("tokens", 900); fact("device", "cpu")
seen.phase()
"""

import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Protocol

import numpy as np

from harness.types import Phase

Advance = Callable[[int], None]


class Listener(Protocol):
    """Shows a stage while it runs."""

    def begin(self, name: str, total: int | None) -> Advance:
        """A stage has begun; the result is called with the number of items done since the last call."""
        ...

    def end(self, name: str, wall_s: float) -> None:
        """The stage that began last has ended."""
        ...


class Recorder:
    """What one phase cost and what was said while it ran."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.facts: dict[str, Any] = {}
        self.later: dict[str, Callable[[], Any]] = {}
        self.wall_s = self.cpu_s = self.earlier_s = 0.0
        self.elsewhere = False
        self.inner: list[float] = []  # seconds spent in stages inside each open stage
        self.prefix = ""
        self.keeps_metadata = True
        self.outer: Recorder | None = None

    def phase(self) -> Phase:
        """The figures of the recording, once it has ended."""
        return Phase(
            wall_s=self.wall_s,
            cpu_s=self.cpu_s,
            stages=dict(self.stages),
            counts=dict(self.counts),
            earlier_s=self.earlier_s,
            elsewhere=self.elsewhere,
        )


_recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def recording(metadata: bool = True) -> Iterator[Recorder]:
    """Time a phase and gather its stages and counts and, unless ``metadata`` is False, what components record."""
    recorder = Recorder()
    recorder.outer = _recorder.get()
    recorder.keeps_metadata = metadata and (recorder.outer is None or recorder.outer.keeps_metadata)
    token = _recorder.set(recorder)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield recorder
    finally:
        recorder.wall_s += time.perf_counter() - wall
        recorder.cpu_s += time.process_time() - cpu
        _recorder.reset(token)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Show stages to `listener` meanwhile; None shows them to nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def stage(name: str, total: int | None = None) -> Iterator[Advance]:
    """Add the block's wall time, less that of stages inside it, to `name`; yields a function that counts progress."""
    recorder, listener = _recorder.get(), _listener.get()
    advance = listener.begin(name, total) if listener else ignore
    if recorder:
        recorder.inner.append(0.0)
    start = time.perf_counter()
    try:
        yield advance
    finally:
        wall = time.perf_counter() - start
        if recorder:
            recorder.stages[recorder.prefix + name] += wall - recorder.inner.pop()
            if recorder.inner:
                recorder.inner[-1] += wall
        if listener:
            listener.end(name, wall)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Put `name/` before the stages, counts and facts of one of several retrievers."""
    recorder = _recorder.get()
    if recorder is None:
        yield
        return
    before, recorder.prefix = recorder.prefix, f"{recorder.prefix}{name}/"
    try:
        yield
    finally:
        recorder.prefix = before


def ignore(_: int) -> None:
    """Show no progress."""


def count(name: str, n: int) -> None:
    """Add n to a count of the phase being recorded: tokens, truncated, ..."""
    if recorder := _recorder.get():
        recorder.counts[recorder.prefix + name] += n


def other_process(cpu_s: float) -> None:
    """Add CPU seconds that another process spent for the phase being recorded."""
    if recorder := _recorder.get():
        recorder.cpu_s += cpu_s


def fact(name: str, value: Any) -> None:
    """Say something of the retriever that belongs in its record: device, dtype, weights, ..."""
    if (recorder := _recorder.get()) and recorder.keeps_metadata:
        recorder.facts[recorder.prefix + name] = value


def wants_metadata() -> bool:
    """Return whether metadata is recorded now; it is not while single queries are timed."""
    recorder = _recorder.get()
    return recorder is not None and recorder.keeps_metadata


@contextmanager
def unbilled() -> Iterator[None]:
    """Leave the block out of all open phases and stages: house-keeping that is no part of the work."""
    recorder = _recorder.get()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        spent, spent_cpu = time.perf_counter() - wall, time.process_time() - cpu
        while recorder:
            recorder.wall_s -= spent
            recorder.cpu_s -= spent_cpu
            if recorder.inner:
                recorder.inner[-1] += spent
            recorder = recorder.outer


def afterwards(name: str, measure: Callable[[], Any]) -> None:
    """Have a fact found out once the clock has stopped: what a check against an exact search gives, say."""
    if recorder := _recorder.get():
        recorder.later[recorder.prefix + name] = measure


def bill(phase: Phase, into: str, earlier: bool, elsewhere: bool = False) -> None:
    """Enter work that was recorded apart: its counts and, where it was done `earlier`, its seconds in stage `into`.

    What was done `elsewhere`, on another machine, has no price here: the phase then has no throughput.
    """
    recorder = _recorder.get()
    if recorder is None:
        return
    for name, n in phase.counts.items():
        recorder.counts[recorder.prefix + name] += n
    recorder.elsewhere |= elsewhere
    if earlier and not elsewhere:
        recorder.stages[recorder.prefix + into] += phase.wall_s
        recorder.wall_s += phase.wall_s
        recorder.cpu_s += phase.cpu_s
        recorder.earlier_s += phase.wall_s


def peak_memory() -> int:
    """Bytes of resident memory that this process held at its highest."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def reference_kernels(repeats: int = 5) -> dict[str, float]:
    """Least CPU seconds of three fixed pieces of work: a dict loop, a BLAS product, a random gather.

    They say how fast this machine is just now, so that another run's CPU seconds can be set beside this one's.
    """
    return {name: min(_cpu_seconds(kernel) for _ in range(repeats)) for name, kernel in _kernels().items()}


@cache
def _kernels() -> dict[str, Callable[[], object]]:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((384, 384), dtype=np.float32)
    table = rng.standard_normal(1 << 20, dtype=np.float32)
    places = rng.integers(0, len(table), 1 << 20)
    words = [f"w{number}" for number in rng.integers(0, 5000, 50_000)]

    def loop() -> None:
        seen: dict[str, int] = {}
        for word in words:
            seen[word] = seen.get(word, 0) + 1

    return {
        "dict_loop": loop,
        "blas_product": lambda: [matrix @ matrix for _ in range(8)],
        "random_gather": lambda: table[places].sum(),
    }


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
