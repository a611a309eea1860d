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
    """Process items on a thread pool; yield each item with its result as soon as it finishes.

    When the generator is closed or `work` raises, no further item is started and the stop event is set.

    Args:
        work: Called with an item and the stop event; returns the result.
        items: The items.
        concurrency: Number of threads.
        name: Prefix of the threads' names.
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
    """Estimate the number of tokens of a text as one per three bytes of UTF-8, an overestimate for English."""
    return len(text.encode()) // 3 + 1


def truncate(text: str, max_tokens: int) -> str:
    """Return the longest prefix of `text` that `estimate_tokens` estimates as at most `max_tokens`."""
    return text.encode()[: 3 * max_tokens - 1].decode(errors="ignore")


def split(texts: Sequence[str], max_texts: int, max_tokens: int) -> Iterator[slice]:
    """Divide texts into batches: yield slices of consecutive texts within both limits.

    Args:
        texts: The texts.
        max_texts: Maximum number of texts in a batch.
        max_tokens: Maximum number of estimated tokens in a batch; a longer text forms a batch by itself.
    """
    start = tokens = 0
    for row, text in enumerate(texts):
        size = estimate_tokens(text)
        if row > start and (row - start >= max_texts or tokens + size > max_tokens):
            yield slice(start, row)
            start, tokens = row, 0
        tokens += size
    if len(texts):
        yield slice(start, len(texts))
