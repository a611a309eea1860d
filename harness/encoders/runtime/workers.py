"""One process a device, each with the encoder's model on its own: several GPUs of one machine encode at once."""

import copy
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from harness import instrument
from harness.embedding_cache.shards import Arrays
from harness.environment import keep_memory, limited_threads
from harness.errors import RunError
from harness.signals import end_with
from harness.types import Phase

_own: Any = None  # the encoder of this process, where it is a worker
_all_here: Any = None
_limit: int | None = None


class Workers:
    """Processes that encode shards; what they counted is billed where the shard is taken.

    `encoder` is shipped without its weights, which every process loads onto the device that it takes for itself;
    `threads` for each.
    """

    def __init__(self, encoder: Any, devices: list[str], threads: int) -> None:
        bare = copy.copy(encoder)  # without what is loaded, and no circle through the pool
        context = multiprocessing.get_context("spawn")
        free, all_here = context.Queue(), context.Barrier(len(devices))
        for device in devices:
            free.put(device)
        self._pool = ProcessPoolExecutor(len(devices), context, _begin, (os.getpid(), bare, free, all_here, threads))
        self._asked: list[Future[Any]] = []
        for ready in [self._pool.submit(_ready) for _ in devices]:
            _answer(ready)

    def begin(self, texts: list[str], side: str) -> Callable[[instrument.Advance], Arrays]:
        """Hand a shard to a process that is free; the result waits for its arrays."""
        future = self._pool.submit(_encode, texts, side)
        self._asked.append(future)

        def finish(step: instrument.Advance) -> Arrays:
            arrays: Arrays
            arrays, cost = _answer(future)
            self._asked.remove(future)
            instrument.bill(cost, "encode", earlier=False)
            instrument.other_process(cost.cpu_s)
            step(len(texts))
            return arrays

        return finish

    def cancel(self, now: bool = False) -> None:
        """Begin nothing more of what was handed over; `now`: end what was begun, and the processes."""
        for future in self._asked:
            future.cancel()
        self._asked.clear()
        if now:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()


def _answer(future: "Future[Any]") -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        raise RunError(
            "a process that encodes on one of several devices ended, perhaps for lack of memory; what is encoded is "
            "kept: give the command again, or take fewer with encoder.device"
        ) from None


def _begin(parent: int, encoder: Any, free: Any, all_here: Any, threads: int) -> None:
    global _own, _all_here, _limit
    end_with(parent)
    keep_memory()
    encoder.settle(free.get())
    _own, _all_here, _limit = encoder, all_here, threads
    with limited_threads(threads):
        encoder.load()


def _ready() -> None:
    """Wait until every process has its model, so that each answers once."""
    _all_here.wait()


def _encode(texts: list[str], side: str) -> tuple[Arrays, Phase]:
    with limited_threads(_limit), instrument.recording() as seen:
        arrays = _own.shard(texts, side)
    return arrays, seen.phase()
