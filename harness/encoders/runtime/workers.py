"""Worker processes that encode on several devices of one machine at once, each with the model on its device."""

import copy
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from harness import instrument
from harness.embedding_cache.shards import Arrays
from harness.environment import limited_threads
from harness.errors import RunError
from harness.signals import end_with
from harness.types import Phase

_encoder: Any = None  # the encoder of this process, if it is a worker
_started: Any = None
_threads: int | None = None


class Workers:
    """A pool of worker processes that encode shards.

    Args:
        encoder: Sent without its weights, which every worker loads on its own device.
        devices: One worker is started for each.
        threads: CPU threads of each worker.
    """

    def __init__(self, encoder: Any, devices: list[str], threads: int) -> None:
        unloaded = copy.copy(encoder)  # pickled without its model and its workers
        context = multiprocessing.get_context("spawn")
        free_devices, started = context.Queue(), context.Barrier(len(devices))
        for device in devices:
            free_devices.put(device)
        arguments = (os.getpid(), unloaded, free_devices, started, threads)
        self._pool = ProcessPoolExecutor(len(devices), context, _start, arguments)
        self._pending: list[Future[Any]] = []
        for ready in [self._pool.submit(_wait_for_all) for _ in devices]:
            _result(ready)

    def begin(self, texts: list[str], side: str) -> Callable[[instrument.Advance], Arrays]:
        """Submit the shard `texts` of one `side`; return a function that waits for its arrays and adds its counters."""
        future = self._pool.submit(_encode, texts, side)
        self._pending.append(future)

        def finish(step: instrument.Advance) -> Arrays:
            arrays: Arrays
            arrays, cost = _result(future)
            self._pending.remove(future)
            instrument.add_counters(cost)
            instrument.add_cpu_time(cost.cpu_s)
            step(len(texts))
            return arrays

        return finish

    def cancel(self, now: bool = False) -> None:
        """Cancel the submitted shards that have not begun; with `now` terminate the processes as well."""
        for future in self._pending:
            future.cancel()
        self._pending.clear()
        if now:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()


def _result(future: "Future[Any]") -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        raise RunError(
            "a process that encodes on one of several devices ended, perhaps because it ran out of memory; finished "
            "shards are in the embedding cache: run the command again, with fewer devices in encoder.device if it ran "
            "out of memory"
        ) from None


def _start(parent: int, encoder: Any, free_devices: Any, started: Any, threads: int) -> None:
    """Initialise a worker process: choose a free device and load the model on it."""
    global _encoder, _started, _threads
    end_with(parent)
    encoder.set_device(free_devices.get())
    _encoder, _started, _threads = encoder, started, threads
    with limited_threads(threads):
        encoder.load()


def _wait_for_all() -> None:
    """Wait until every worker has loaded its model, so that each runs one of these calls."""
    _started.wait()


def _encode(texts: list[str], side: str) -> tuple[Arrays, Phase]:
    with limited_threads(_threads), instrument.recording() as recorder:
        arrays = _encoder.shard(texts, side)
    return arrays, recorder.phase()
