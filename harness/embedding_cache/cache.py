"""The embedding cache: an encoder's arrays on disk, under a hash of everything that they depend on.

A shard has the embeddings of a few thousand texts, the time in which they were computed, and the machine (`shards`). A
cache hit adds that cached time to the recording.
"""

import functools
import importlib.metadata
import json
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness import instrument, user_code, versions
from harness.embedding_cache import shards
from harness.embedding_cache.shards import Arrays
from harness.environment import threads
from harness.types import StringColumn

SHARD = 4096
_MIN_TEXTS = 128  # fewer texts, such as those of a warm-up, are not cached
Use = Literal["reuse", "refresh", "off"]
Finish = Callable[[], Arrays]
_use: ContextVar[Use] = ContextVar("use", default="reuse")


@contextmanager
def using(chosen: Use) -> Iterator[None]:
    """Reuse cached shards, refresh (encode and replace) them, or turn the cache off, within the block."""
    token = _use.set(chosen)
    try:
        yield
    finally:
        _use.reset(token)


def use() -> Use:
    """Return the current use of the cache: `reuse`, `refresh` or `off`."""
    return _use.get()


@dataclass(frozen=True)
class _Pending:
    """A cached shard, or a shard that is being encoded."""

    rows: NDArray[np.int64]
    path: Path | None
    cached: shards.CachedArrays | None
    finish: Finish | None


def encoded(
    texts: StringColumn,
    identity: Mapping[str, Any],
    begin: Callable[[list[str]], Finish],
    keep: bool,
    *,
    shard: int = SHARD,
    paid: bool = False,
    conditions: Mapping[str, Any] | None = None,
    about: Mapping[str, str] | None = None,
    order: NDArray[np.int64] | None = None,
    ahead: int = 0,
) -> Iterator[tuple[NDArray[np.int64], Arrays]]:
    """Yield the row numbers and the arrays of each shard of `texts`, from the cache or encoded.

    Args:
        texts: The texts to encode.
        identity: Everything that the arrays depend on besides the texts.
        begin: Starts encoding a shard's texts and returns a function that waits for their arrays.
        keep: Read shards from the cache and write them to it.
        shard: Number of texts in a shard.
        paid: The arrays cost money: shards of any size are cached, and are hits under all conditions.
        conditions: Settings that change the time and not the arrays, such as device and batch size. A shard that this
            machine computed under other conditions, or with another number of threads, is a miss.
        about: Names shown in listings of the cache, not part of the key.
        order: Row numbers [texts] in the order in which they are divided into shards; None for their own order.
        ahead: Number of shards whose encoding is started before waiting for the first.
    """
    keep = keep and use() != "off"
    full_identity = {"libraries": _libraries(), **identity}
    measured_under = "" if paid else json.dumps({"threads": threads(), **(conditions or {})}, sort_keys=True)
    order = np.arange(len(texts)) if order is None else order
    pending: deque[_Pending] = deque()
    for start in range(0, len(order), shard):
        rows = order[start : start + shard]
        with _untimed(pending):
            block = texts.take(rows)
            path = shards.path_of(full_identity, block) if keep and (paid or len(block) >= _MIN_TEXTS) else None
            cached = shards.read(path, measured_under) if path and use() == "reuse" else None
        pending.append(_Pending(rows, path, cached, None if cached else begin(block)))
        if len(pending) > ahead:
            yield _finish_first(pending, full_identity, measured_under, about)
    while pending:
        yield _finish_first(pending, full_identity, measured_under, about)


def _untimed(in_progress: Collection[_Pending]) -> AbstractContextManager[None]:
    """Exclude cache I/O from timing unless other devices keep computing in the meantime."""
    return instrument.exclude() if len(in_progress) < 2 else nullcontext()


def _finish_first(
    pending: deque[_Pending], identity: Mapping[str, Any], conditions: str, about: Mapping[str, str] | None
) -> tuple[NDArray[np.int64], Arrays]:
    """Return the rows and arrays of the first pending shard; wait for its encoding and cache it if it was a miss."""
    shard = pending.popleft()
    if shard.cached:
        arrays, cost, foreign_machine = shard.cached
        instrument.add_counters(cost)
        instrument.add_cached_time(cost, "encode", foreign_machine)
        if not foreign_machine:
            instrument.add_shard(cost, len(shard.rows))
        return shard.rows, arrays
    assert shard.finish is not None  # noqa: S101
    with instrument.recording() as recorder:
        arrays = shard.finish()
    instrument.add_counters(recorder.phase())
    instrument.add_shard(recorder.phase(), len(shard.rows))
    if shard.path:
        with _untimed(pending):
            shards.write(shard.path, identity, arrays, recorder.phase(), conditions, about)
            if cached := shards.read(shard.path, conditions):  # memory-mapped: a corpus may exceed the memory
                arrays = cached.arrays
    return shard.rows, arrays


def encoder_identity(encoder: type) -> dict[str, Any]:
    """Return the part of an identity that depends on the encoder's class.

    It has the version of the family's embeddings; for a user's class also its name and a hash of its source and of all
    user modules that it imports.
    """
    family = getattr(encoder, "family", None)
    version = {"embeddings": [family, versions.EMBEDDINGS[family]]} if family in versions.EMBEDDINGS else {}
    source = _source(encoder)
    if source is None:
        return version
    return {**version, "class": f"{encoder.__module__}.{encoder.__qualname__}", "source": source}


@functools.cache
def _source(encoder: type) -> str | None:
    """Hash the user's code of a class; cached, so that the latency of a query does not include it."""
    return user_code.code_hash(base.__module__ for base in encoder.__mro__)


@functools.cache
def _libraries() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in ("transformers", "sentence-transformers")}
