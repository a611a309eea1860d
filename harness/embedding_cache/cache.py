"""The embedding cache: what an encoder made of texts, on disk under everything that it depends on.

A shard holds the vectors of a few thousand texts, and what they cost and where (`shards`). Whoever reads it pays that
price again on the clock.
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
from harness.types import Phase, StringColumn

SHARD = 4096
_LEAST = 128  # fewer texts, a warm-up's or a batch of queries, are not worth a file
Use = Literal["reuse", "renew", "off"]
Finish = Callable[[], Arrays]
_use: ContextVar[Use] = ContextVar("use", default="reuse")


@contextmanager
def using(chosen: Use) -> Iterator[None]:
    """Reuse shards that are there, renew them all, or leave the cache alone meanwhile."""
    token = _use.set(chosen)
    try:
        yield
    finally:
        _use.reset(token)


def use() -> Use:
    """What is done with the cache now."""
    return _use.get()


@dataclass(frozen=True)
class _Begun:
    """A shard that was found, or whose encoding has begun."""

    rows: NDArray[np.int64]
    path: Path | None
    found: tuple[Arrays, Phase, bool] | None
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
    """The numbers of `shard` texts and their arrays, in `order`: read where `keep` and they are there, else computed.

    `begin` starts on a shard's texts and gives what waits for their arrays; `ahead` shards are begun before they are
    waited for. `identity` says all that the arrays depend on beside the texts; `about` names it for people. A shard
    that is damaged is named and made anew. `conditions` change the price alone: device, batch size; with others, or
    another number of threads, this machine encodes anew. What is `paid` for is kept however little it is, and whatever
    the conditions.
    """
    keep = keep and use() != "off"
    whole = {"libraries": _libraries(), **identity}
    said = "" if paid else json.dumps({"threads": threads(), **(conditions or {})}, sort_keys=True)
    order = np.arange(len(texts)) if order is None else order
    begun: deque[_Begun] = deque()
    for start in range(0, len(order), shard):
        rows = order[start : start + shard]
        with _aside(begun):
            block = texts.take(rows)
            path = shards.path_of(whole, block) if keep and (paid or len(block) >= _LEAST) else None
            found = shards.read(path, said) if path and use() == "reuse" else None
        begun.append(_Begun(rows, path, found, None if found else begin(block)))
        if len(begun) > ahead:
            yield _finished(begun, whole, said, about)
    while begun:
        yield _finished(begun, whole, said, about)


def _aside(going_on: Collection[_Begun]) -> AbstractContextManager[None]:
    """House-keeping is no part of the work, unless the work goes on meanwhile, on other devices."""
    return instrument.unbilled() if len(going_on) < 2 else nullcontext()


def _finished(
    waiting: deque[_Begun], identity: Mapping[str, Any], said: str, about: Mapping[str, str] | None
) -> tuple[NDArray[np.int64], Arrays]:
    begun = waiting.popleft()
    if begun.found:
        arrays, cost, elsewhere = begun.found
        instrument.bill(cost, "encode", earlier=True, elsewhere=elsewhere)
        return begun.rows, arrays
    assert begun.finish is not None  # noqa: S101
    with instrument.recording() as seen:
        arrays = begun.finish()
    instrument.bill(seen.phase(), "encode", earlier=False)
    if begun.path:
        with _aside(waiting):
            shards.write(begun.path, identity, arrays, seen.phase(), said, about)
            if kept := shards.read(begun.path, said):  # mapped: a corpus' vectors need not all lie in memory
                arrays = kept[0]
    return begun.rows, arrays


def encoder_identity(encoder: type) -> dict[str, Any]:
    """Return what an encoder's class adds to an identity.

    The version of its family's embeddings; for a user's own class also its name and the hash of its source and of
    all modules of the user's that it brings in.
    """
    family = getattr(encoder, "family", None)
    version = {"embeddings": [family, versions.EMBEDDINGS[family]]} if family in versions.EMBEDDINGS else {}
    source = user_code.code_hash(base.__module__ for base in encoder.__mro__)
    if source is None:
        return version
    return {**version, "class": f"{encoder.__module__}.{encoder.__qualname__}", "source": source}


@functools.cache
def _libraries() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in ("transformers", "sentence-transformers")}
