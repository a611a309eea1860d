"""Prefetch iterator: prepares the next batches on a background thread while the model computes."""

from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_DEPTH = 32
_POLL_S = 0.1


class Prefetch(Iterator[T], Generic[T]):
    """Iterates over `items`, which a background thread produces in advance.

    An exception in `items` is raised by `next()` after the items before it.

    Args:
        items: An iterable that the thread consumes, such as a generator of tokenised batches.
        depth: Maximum number of prepared items that wait in the queue.
    """

    def __init__(self, items: Iterable[T], depth: int = _DEPTH) -> None:
        self._queue: Queue[tuple[bool, Any]] = Queue(depth)
        self._closed = Event()
        Thread(target=_fill, args=(items, self._queue, self._closed), name="prefetch", daemon=True).start()

    def __next__(self) -> T:
        is_item, value = self._queue.get()
        if is_item:
            item: T = value
            return item
        self._queue.put((False, None))  # the next call raises StopIteration
        raise value if isinstance(value, BaseException) else StopIteration

    def close(self) -> None:
        """End the thread and drop the remaining items."""
        self._closed.set()


def _fill(items: Iterable[Any], queue: "Queue[tuple[bool, Any]]", closed: Event) -> None:
    failure: BaseException | None = None
    try:
        for item in items:
            if not _put(queue, (True, item), closed):
                return
    except BaseException as error:
        failure = error
    _put(queue, (False, failure), closed)


def _put(queue: "Queue[tuple[bool, Any]]", entry: tuple[bool, Any], closed: Event) -> bool:
    while not closed.is_set():
        try:
            queue.put(entry, timeout=_POLL_S)
            return True
        except Full:
            continue
    return False
