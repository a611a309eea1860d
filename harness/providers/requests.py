"""Requests to a server that may fail: repeated by one rule for every provider, and their failures told without a key.

`repeated(attempt, ...)` asks until an answer can be used. Waits grow exponentially with jitter; a Retry-After is kept.
`concurrently` has several in flight. `spans` puts texts into requests.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from threading import Event
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

log = logging.getLogger(__name__)

_FIRST_S, _LONGEST_S = 1.0, 60.0  # of the waits that we choose
_PATIENCE_S = 600.0  # a server that asks for more is not waited for
_UNUSABLE = 3  # so often is a request repeated whose answer came and was wrong: each is paid for
_SHOWN = 300  # characters of a server's message: it may be a page of HTML
_KEYLIKE = re.compile(r"\b[sp]k-[\w*.-]+|(?<=\bBearer )\S+|\b[A-Za-z0-9]{32,}\b")


class Paid(Protocol):
    """An answer that can be used."""

    @property
    def tokens(self) -> int:
        """What it cost."""
        ...


Found = TypeVar("Found", bound=Paid)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Failure:
    """What went wrong with one request."""

    said: str
    status: int | None = None
    """HTTP's status, 200 for an answer that cannot be used; None where no answer came."""
    wait_s: float = 0.0
    """Seconds that the server asks to wait."""
    tokens: int = 0
    """Tokens of an answer that cannot be used: paid for all the same."""
    lasting: bool = False
    """Repeating it would not help, whatever the status."""

    def repeats(self, retries: int) -> int:
        """How often a request that fails so is repeated, of `retries` at most."""
        if self.lasting:
            return 0
        if self.status is None or self.status in (408, 429) or self.status >= 500:
            return retries
        return min(retries, _UNUSABLE) if self.status < 300 else 0


@dataclass(frozen=True)
class Outcome(Generic[Found]):
    """What a request came to in the end."""

    found: Found | Failure
    retries: int
    tokens: int
    """Of all its answers."""


def repeated(
    attempt: Callable[[], Found | Failure], name: str, retries: int, jitter: np.random.Generator, stop: Event
) -> Outcome[Found]:
    """Make a request until its answer can be used, or is not worth another try, or others have failed (`stop`)."""
    done = tokens = 0
    while True:
        found = attempt()
        tokens += found.tokens
        if not isinstance(found, Failure) or stop.is_set() or done >= found.repeats(retries):
            return Outcome(found, done, tokens)
        wait = max(found.wait_s, min(_LONGEST_S, _FIRST_S * 2.0**done) * jitter.uniform(0.5, 1.0))
        done += 1
        log.warning("%s: %s; again in %.1f s (%d of %d)", name, found.said, wait, done, found.repeats(retries))
        _sleep(wait, stop)


def concurrently(
    work: Callable[[Item, Event], Result], items: Iterable[Item], concurrency: int, name: str
) -> Generator[tuple[Item, Result], None, None]:
    """What the work gives for each item, as it comes, of `concurrency` at a time in threads of this name.

    When the generator is closed early, nothing more is begun and the event is set for what has begun.
    """
    stop = Event()
    pool = ThreadPoolExecutor(concurrency, thread_name_prefix=name)
    try:
        waiting = {pool.submit(work, item, stop): item for item in items}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _sleep(seconds: float, stop: Event) -> None:
    stop.wait(seconds)


def refused(status: int, headers: Mapping[str, str] | None, body: Any, key: str) -> Failure:
    """The failure that an answer of this status is."""
    wait = _retry_after({name.lower(): value for name, value in (headers or {}).items()})
    message = masked(_message(body), key)
    said = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    if wait > _PATIENCE_S:
        said += f" (it asks to wait {wait:.0f} s)"
    used_up = "insufficient_quota" in str(body)  # OpenAI's 429 where there is no money left
    return Failure(said, status, wait, lasting=used_up or wait > _PATIENCE_S)


def unanswered(error: Exception, key: str) -> Failure:
    """The failure that a broken connection or a time-out is."""
    cause = error.__cause__ or error
    return Failure(masked(f"no answer: {type(cause).__name__}: {cause}", key).rstrip(": "))


def masked(text: str, key: str) -> str:
    """A server's text as it may be shown: short, on one line, and without the key or what looks like one."""
    if len(key) > 3:
        text = text.replace(key, "***")
    text = " ".join(_KEYLIKE.sub("***", text).split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _message(body: Any) -> str:
    """The words in an error's body: OpenAI's, Cohere's, FastAPI's, or the whole of it."""
    while isinstance(body, Mapping):
        inner = next((body[name] for name in ("error", "message", "detail") if body.get(name)), None)
        if inner is None:
            return str(dict(body)) if body else ""
        body = inner
    return "" if body is None else str(body)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait by the header, which holds seconds or a date; 0 where it says nothing."""
    said = headers.get("retry-after", "").strip()
    try:
        seconds = float(said)
    except ValueError:
        until = parsedate_tz(said)
        if until is None:
            return 0.0
        now = parsedate_tz(headers.get("date", ""))  # by the server's own clock, which need not be ours
        seconds = mktime_tz(until) - (mktime_tz(now) if now else time.time())
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def estimated(text: str) -> int:
    """About how many tokens a text has: one for three bytes of UTF-8, more than English needs."""
    return len(text.encode()) // 3 + 1


def cut(text: str, tokens: int) -> str:
    """The beginning of a text, of no more than so many tokens as `estimated`."""
    return text.encode()[: 3 * tokens - 1].decode(errors="ignore")


def spans(texts: Sequence[str], most_texts: int, most_tokens: int) -> Iterator[slice]:
    """Texts that follow one another put into requests, within both limits; a text over the second one goes alone."""
    start = tokens = 0
    for row, text in enumerate(texts):
        size = estimated(text)
        if row > start and (row - start >= most_texts or tokens + size > most_tokens):
            yield slice(start, row)
            start, tokens = row, 0
        tokens += size
    if len(texts):
        yield slice(start, len(texts))
