"""The embedding cache: an encoder's arrays on disk, under a hash of everything that they depend on.

A shard holds the vectors of a few thousand texts, their cost and the machine that paid it (`shards`). A cache hit adds
that cached time to the instrument.
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
_LEAST = 128  # fewer texts, a warm-up's or a batch of queries, are not worth a file
Use = Literal["reuse", "renew", "off"]
Finish = Callable[[], Arrays]
_use: ContextVar[Use] = ContextVar("use", default="reuse")


@contextmanager
def using(chosen: Use) -> Iterator[None]:
    """Reuse cached shards, renew them all, or turn the cache off, inside the block."""
    token = _use.set(chosen)
    try:
        yield
    finally:
        _use.reset(token)


def use() -> Use:
    """Return how the cache is used now."""
    return _use.get()


@dataclass(frozen=True)
class _Begun:
    """A cached shard, or one whose encoding has begun."""

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
    """Yield the row numbers of `shard` texts and their arrays, in `order`: from the cache if `keep`, else encoded.

    Args:
        texts: The texts to encode.
        identity: Everything that the arrays depend on besides the texts.
        begin: Starts to encode a shard's texts and returns a function that waits for their arrays.
        keep: Read shards from the cache and write them to it.
        shard: Number of texts in a shard.
        paid: The arrays cost money: they are cached however few they are, and whatever the conditions.
        conditions: What changes the cost alone, such as device and batch size; under other conditions, or with
            another number of threads, this machine encodes again.
        about: Names of the identity for people, no part of the key.
        order: Row numbers of the texts, in the order in which they are cut into shards.
        ahead: Number of shards that are begun before the first is waited for.
    """
    keep = keep and use() != "off"
    whole = {"libraries": _libraries(), **identity}
    measured_under = "" if paid else json.dumps({"threads": threads(), **(conditions or {})}, sort_keys=True)
    order = np.arange(len(texts)) if order is None else order
    begun: deque[_Begun] = deque()
    for start in range(0, len(order), shard):
        rows = order[start : start + shard]
        with _untimed(begun):
            block = texts.take(rows)
            path = shards.path_of(whole, block) if keep and (paid or len(block) >= _LEAST) else None
            cached = shards.read(path, measured_under) if path and use() == "reuse" else None
        begun.append(_Begun(rows, path, cached, None if cached else begin(block)))
        if len(begun) > ahead:
            yield _finished(begun, whole, measured_under, about)
    while begun:
        yield _finished(begun, whole, measured_under, about)


def _untimed(in_progress: Collection[_Begun]) -> AbstractContextManager[None]:
    """Exclude cache I/O from timing unless other devices keep computing in the meantime."""
    return instrument.exclude() if len(in_progress) < 2 else nullcontext()


def _finished(
    waiting: deque[_Begun], identity: Mapping[str, Any], conditions: str, about: Mapping[str, str] | None
) -> tuple[NDArray[np.int64], Arrays]:
    begun = waiting.popleft()
    if begun.cached:
        arrays, cost, foreign_machine = begun.cached
        instrument.add_counters(cost)
        instrument.add_cached_time(cost, "encode", foreign_machine)
        return begun.rows, arrays
    assert begun.finish is not None  # noqa: S101
    with instrument.recording() as seen:
        arrays = begun.finish()
    instrument.add_counters(seen.phase())
    if begun.path:
        with _untimed(waiting):
            shards.write(begun.path, identity, arrays, seen.phase(), conditions, about)
            if cached := shards.read(begun.path, conditions):  # memory-mapped: a corpus may exceed the memory
                arrays = cached.arrays
    return begun.rows, arrays


def encoder_identity(encoder: type) -> dict[str, Any]:
    """Return what an encoder's class adds to an identity.

    The version of its family's embeddings; for a user's own class also its name and the hash of its source and of
    all modules of the user's that it brings in.
    """
    family = getattr(encoder, "family", None)
    version = {"embeddings": [family, versions.EMBEDDINGS[family]]} if family in versions.EMBEDDINGS else {}
    source = _source(encoder)
    if source is None:
        return version
    return {**version, "class": f"{encoder.__module__}.{encoder.__qualname__}", "source": source}


@functools.cache
def _source(encoder: type) -> str | None:
    """Hash the user's code behind a class, once: a single query's latency must not hold it."""
    return user_code.code_hash(base.__module__ for base in encoder.__mro__)


@functools.cache
def _libraries() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in ("transformers", "sentence-transformers")}
