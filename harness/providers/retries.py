"""Count, log and cancel the retries of an SDK; mask the API key in its error messages."""

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
active = threading.local()  # `active.call` is the thread's request; an SDK runs the hooks on the request's thread


@dataclass
class Call:
    """A request with its retries."""

    name: str  # model and server, for messages
    stop: threading.Event  # set to cancel the request
    attempts: int = 0  # HTTP requests sent
    tokens: int = 0  # input tokens of all responses, including invalid ones, which are paid for too
    status: int | None = None  # HTTP status of the last failure, 200 for an invalid response; None without a response
    problem: str = ""  # message of the last failure


class CancelledError(BaseException):
    """Raised to cancel a request; not an `Exception`, because an SDK may retry these."""


class RequestError(ApiError):
    """A request that failed after all retries; `call` has their number."""

    def __init__(self, message: str, call: Call) -> None:
        super().__init__(message)
        self.call = call

    def __reduce__(self) -> tuple[type[ApiError], tuple[Any, ...]]:
        return ApiError, self.args  # the call's event cannot be pickled


def _before_attempt(_: Any) -> None:
    """Count an attempt and log a retry. Raises `CancelledError` if the call was cancelled."""
    call: Call = active.call
    if call.stop.is_set():
        raise CancelledError
    if call.attempts:
        log.warning("%s: %s; retry %d", call.name, call.problem, call.attempts)
    call.attempts += 1
    call.problem = "no answer"


def _after_attempt(response: Any) -> None:
    """Store the status; prevent retries by OpenAI's SDK if the account's quota is used up."""
    active.call.problem = f"HTTP {response.status_code}"
    if response.status_code == 429 and b"insufficient_quota" in response.read():
        response.headers["x-should-retry"] = "false"


# event hooks for the httpx client of an SDK
HOOKS: dict[str, list[Callable[[Any], Any]]] = {"request": [_before_attempt], "response": [_after_attempt]}


def mask_key(text: str, key: str) -> str:
    """Return the server's `text` on one line, shortened, with `key` and anything that looks like a key masked."""
    if len(key) > 3:
        text = text.replace(key, "***")
    text = " ".join(_KEYLIKE.sub("***", text).split())
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def error_message(body: Any) -> str:
    """Return the message in the body of an error response of OpenAI, Cohere or FastAPI, else the whole body."""
    if isinstance(body, Mapping):
        message = body.get("error") or body.get("message") or body.get("detail")
        return error_message(message) if message else str(dict(body) or "")
    return str(body or "")
