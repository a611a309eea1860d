"""Work that is done a little ahead, by a thread of its own: tokenising while the model computes."""

from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_WAITING = 32
_LOOK_S = 0.1


class Ahead(Iterator[T], Generic[T]):
    """The items of `items`, made by a thread while those before them are used; an error of theirs comes in its place.

    At most `waiting` lie ready. `close` ends the thread when nobody wants the rest.
    """

    def __init__(self, items: Iterable[T], waiting: int = _WAITING) -> None:
        self._ready: Queue[tuple[bool, Any]] = Queue(waiting)
        self._closed = Event()
        Thread(target=_fill, args=(items, self._ready, self._closed), name="ahead", daemon=True).start()

    def __next__(self) -> T:
        more, item = self._ready.get()
        if more:
            own: T = item
            return own
        self._ready.put((False, None))  # whoever asks again is told again
        raise item if isinstance(item, BaseException) else StopIteration

    def close(self) -> None:
        """Make no more."""
        self._closed.set()


def _fill(items: Iterable[Any], ready: "Queue[tuple[bool, Any]]", closed: Event) -> None:
    end: BaseException | None = None
    try:
        for item in items:
            if not _put(ready, (True, item), closed):
                return
    except BaseException as error:
        end = error
    _put(ready, (False, end), closed)


def _put(ready: "Queue[tuple[bool, Any]]", entry: tuple[bool, Any], closed: Event) -> bool:
    while not closed.is_set():
        try:
            ready.put(entry, timeout=_LOOK_S)
            return True
        except Full:
            continue
    return False
