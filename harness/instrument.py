"""Instrumentation: retrievers name stages, counters and metadata; the evaluation times and records them.

with recording() as recorder, stage("encode", total=len(texts)) as advance:
    advance(32); count("tokens", 900); describe_encoder(device="cpu")
recorder.phase()
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from harness import machine
from harness.machine import CLOCK_DIGITS
from harness.types import Counters, Phase, ShardTime

Advance = Callable[[int], None]


class Listener(Protocol):
    """Protocol for progress displays of stages."""

    def begin(self, name: str, total: int | None) -> Advance:
        """Begin the stage `name` of `total` items (None if unknown); return a function that reports progress.

        That function takes the number of items done since its last call.
        """
        ...

    def end(self, name: str, wall_s: float) -> None:
        """End the stage `name`, which began last and took `wall_s` seconds."""
        ...


class DeferredRecall(NamedTuple):
    """A measurement of the recall of approximate search, made after the timed sections."""

    k: int
    measure: Callable[[], float]


class Recorder:
    """Collector of the times, stages, counters and metadata of one phase, by component."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = defaultdict(float)
        self.counters: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        """By component, then by name."""
        self.encoders: dict[str, dict[str, Any]] = defaultdict(dict)
        """Fields of `EncoderInfo` by component."""
        self.metadata: dict[str, Any] = {}
        self.deferred: dict[str, DeferredRecall] = {}
        self.shards: dict[str, list[ShardTime]] = defaultdict(list)
        """By component."""
        self.wall_s = self.cpu_s = self.cached_s = 0.0
        self.run_delay_s: float | None = 0.0
        """None once a part of the phase has an unknown delay."""
        self.cached_since: list[datetime | None] = []
        """Time at which each group of cached embeddings was computed; None where it was not stored."""
        self.foreign_machine = False
        self.inner: list[float] = []  # seconds spent in stages inside each open stage
        self.component = ""
        self.keeps_metadata = True
        self.outer: Recorder | None = None

    def phase(self) -> Phase:
        """Return the figures of the recording, once it has ended."""
        return Phase(
            wall_s=round(self.wall_s, CLOCK_DIGITS),
            cpu_s=round(self.cpu_s, CLOCK_DIGITS),
            stages={name: round(seconds, CLOCK_DIGITS) for name, seconds in self.stages.items()},
            counters={component: Counters.model_validate(amounts) for component, amounts in self.counters.items()},
            cached_s=round(self.cached_s, CLOCK_DIGITS),
            cached_since=None if None in self.cached_since else min(filter(None, self.cached_since), default=None),
            foreign_machine=self.foreign_machine,
            run_delay_s=None if self.run_delay_s is None else round(self.run_delay_s, CLOCK_DIGITS),
            shards=dict(self.shards),
        )

    def add_run_delay(self, seconds: float | None) -> None:
        """Add seconds in which the work waited for a processor; None if they are unknown."""
        self.run_delay_s = None if seconds is None or self.run_delay_s is None else self.run_delay_s + seconds

    def named(self, name: str) -> str:
        """Return a name prefixed with the current component: `first_stage/search`."""
        return f"{self.component}/{name}" if self.component else name


_recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def recording(metadata: bool = True) -> Iterator[Recorder]:
    """Time a phase and collect its stages and counters and, unless `metadata` is False, its metadata."""
    recorder = Recorder()
    recorder.outer = _recorder.get()
    recorder.keeps_metadata = metadata and (recorder.outer is None or recorder.outer.keeps_metadata)
    token = _recorder.set(recorder)
    delay = machine.run_delay()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield recorder
    finally:
        recorder.wall_s += time.perf_counter() - wall
        recorder.cpu_s += time.process_time() - cpu
        delay_now = machine.run_delay()
        recorder.add_run_delay(None if delay is None or delay_now is None else delay_now - delay)
        _recorder.reset(token)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Show the block's stages to `listener`; None to show none."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def stage(name: str, total: int | None = None) -> Iterator[Advance]:
    """Time the block as a stage; yield a function that takes the number of items done since its last call.

    Args:
        name: Name of the stage. Its seconds exclude the stages inside it.
        total: Number of items, for a progress bar; None if unknown.
    """
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
            recorder.stages[recorder.named(name)] += wall - recorder.inner.pop()
            if recorder.inner:
                recorder.inner[-1] += wall
        if listener:
            listener.end(name, wall)


@contextmanager
def component(name: str) -> Iterator[None]:
    """Record the block's stages, counters and metadata under a component of a composed retriever; "" adds no level."""
    recorder = _recorder.get()
    if recorder is None:
        yield
        return
    outer, recorder.component = recorder.component, recorder.named(name) if name else recorder.component
    try:
        yield
    finally:
        recorder.component = outer


def ignore(_: int) -> None:
    """Show no progress."""


def count(name: str, n: int) -> None:
    """Add `n` to the counter `name` of the phase being recorded: a field of `Counters` or any other name."""
    if recorder := _recorder.get():
        recorder.counters[recorder.component][name] += n


def add_cpu_time(cpu_s: float) -> None:
    """Add CPU seconds that another process spent on the phase being recorded."""
    if recorder := _recorder.get():
        recorder.cpu_s += cpu_s


def describe(name: str, value: Any) -> None:
    """Add the metadata `name` with its `value` to the record: `describe("depth", 100)`."""
    if (recorder := _recorder.get()) and recorder.keeps_metadata:
        recorder.metadata[recorder.named(name)] = value


def describe_encoder(**fields: Any) -> None:
    """Add fields of `EncoderInfo` for the encoder of the component that is running."""
    if (recorder := _recorder.get()) and recorder.keeps_metadata:
        recorder.encoders[recorder.component] |= fields


def wants_metadata() -> bool:
    """Return True if metadata is being recorded; it is not while single queries are timed."""
    recorder = _recorder.get()
    return recorder is not None and recorder.keeps_metadata


@contextmanager
def exclude() -> Iterator[None]:
    """Exclude the block, such as cache I/O or reference kernels, from the times of all open phases and stages."""
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


def defer_recall(k: int, measure: Callable[[], float]) -> None:
    """Call `measure` later, outside the timed section, for the recall at `k` of approximate against exact search."""
    if recorder := _recorder.get():
        recorder.deferred[recorder.component] = DeferredRecall(k, measure)


def add_counters(phase: Phase) -> None:
    """Add the counters of work that was recorded separately, on another thread or in another process."""
    if recorder := _recorder.get():
        for inner, counters in phase.counters.items():
            amounts = recorder.counters[recorder.named(inner) if inner else recorder.component]
            for name, n in counters.model_dump().items():
                amounts[name] += n


def add_shard(phase: Phase, n_texts: int) -> None:
    """Add the time of one shard, from which the uncertainty of the throughput is estimated.

    Args:
        phase: Cost of the shard.
        n_texts: Number of texts: the amount of work if the encoder counts no tokens.
    """
    if recorder := _recorder.get():
        counters = phase.counters.values()
        tokens = sum((counter.tokens or 0) + (counter.padding or 0) for counter in counters)
        recorder.shards[recorder.component].append(ShardTime(tokens or n_texts, phase.wall_s))


def add_cached_time(phase: Phase, into: str, foreign_machine: bool = False) -> None:
    """Add cached time, the seconds that computing the embeddings of a cache hit took, to a stage.

    Args:
        phase: The cost stored with the embeddings.
        into: Name of the stage.
        foreign_machine: True if another machine computed them; no time is added then, and the phase gets no throughput.
    """
    recorder = _recorder.get()
    if recorder is None:
        return
    recorder.foreign_machine |= foreign_machine
    if not foreign_machine:
        recorder.stages[recorder.named(into)] += phase.wall_s
        recorder.wall_s += phase.wall_s
        recorder.cpu_s += phase.cpu_s
        recorder.cached_s += phase.wall_s
        if phase.wall_s:
            recorder.add_run_delay(phase.run_delay_s)
            recorder.cached_since.append(phase.cached_since)
