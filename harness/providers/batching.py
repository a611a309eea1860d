"""Split texts into requests and keep several requests in flight."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_concurrently(
    work: Callable[[Item, Event], Result], items: Iterable[Item], concurrency: int, name: str
) -> Generator[tuple[Item, Result], None, None]:
    """Yield each item with its result, as they finish, from a pool of `concurrency` threads called `name`.

    When the generator is closed or `work` raises, no further item is begun and the event of the running ones is set.
    """
    stop = Event()
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix=name)
    try:
        futures = {pool.submit(work, item, stop): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text as one for three bytes of UTF-8, which is more than English needs."""
    return len(text.encode()) // 3 + 1


def truncate(text: str, max_tokens: int) -> str:
    """Return the longest beginning of a text that `estimate_tokens` counts as `max_tokens` or fewer."""
    return text.encode()[: 3 * max_tokens - 1].decode(errors="ignore")


def split(texts: Sequence[str], max_texts: int, max_tokens: int) -> Iterator[slice]:
    """Yield slices of consecutive texts within both limits; a text over `max_tokens` gets a slice of its own."""
    start = tokens = 0
    for row, text in enumerate(texts):
        size = estimate_tokens(text)
        if row > start and (row - start >= max_texts or tokens + size > max_tokens):
            yield slice(start, row)
            start, tokens = row, 0
        tokens += size
    if len(texts):
        yield slice(start, len(texts))
