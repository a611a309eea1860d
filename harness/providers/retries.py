"""Count, log and stop the retries that an SDK makes, and word its errors without the key."""

import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import ApiError

log = logging.getLogger(__name__)

_MAX_SHOWN = 300  # characters of a server's message, which may be a page of HTML
_KEYLIKE = re.compile(r"\b[sp]k-[\w*.-]+|(?<=\bBearer )\S+|\b[A-Za-z0-9]{32,}\b")
active = threading.local()  # its `call` is the one that the hooks count for: an SDK runs them on the request's thread


@dataclass
class Call:
    """A request with its retries."""

    name: str  # of server and model, for messages
    stop: threading.Event  # set when the request is no longer wanted
    attempts: int = 0  # HTTP requests sent
    tokens: int = 0  # input tokens of all answers; invalid ones were paid for, too
    status: int | None = None  # of the last failure: HTTP's, 200 for an invalid answer, None where no answer came
    problem: str = ""  # the last failure


class CancelledError(BaseException):
    """A request that is no longer wanted; no `Exception`, which an SDK may retry."""


class RequestError(ApiError):
    """A request that failed in spite of its retries, which `call` counts."""

    def __init__(self, message: str, call: Call) -> None:
        super().__init__(message)
        self.call = call

    def __reduce__(self) -> tuple[type[ApiError], tuple[Any, ...]]:
        return ApiError, self.args  # the event of the call cannot be sent to another process


def _before_attempt(_: Any) -> None:
    """Count an attempt and log a retry; cancel it where the call is no longer wanted."""
    call: Call = active.call
    if call.stop.is_set():
        raise CancelledError
    if call.attempts:
        log.warning("%s: %s; retry %d", call.name, call.problem, call.attempts)
    call.attempts += 1
    call.problem = "no answer"


def _after_attempt(response: Any) -> None:
    """Note the status, and tell OpenAI's SDK not to retry where there is no money left."""
    active.call.problem = f"HTTP {response.status_code}"
    if response.status_code == 429 and b"insufficient_quota" in response.read():
        response.headers["x-should-retry"] = "false"


# event hooks for the httpx client of an SDK
HOOKS: dict[str, list[Callable[[Any], Any]]] = {"request": [_before_attempt], "response": [_after_attempt]}


def mask_key(text: str, key: str) -> str:
    """Return a server's text on one line, shortened, with the key and whatever looks like one masked."""
    if len(key) > 3:
        text = text.replace(key, "***")
    text = " ".join(_KEYLIKE.sub("***", text).split())
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def error_message(body: Any) -> str:
    """Return the message in the body of an error, as OpenAI, Cohere and FastAPI write it, or the whole body."""
    if isinstance(body, Mapping):
        message = body.get("error") or body.get("message") or body.get("detail")
        return error_message(message) if message else str(dict(body) or "")
    return str(body or "")
