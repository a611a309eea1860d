"""Clients of hosted APIs: address, key, SDK, retries, and failures that say what to do.

The SDKs retry what may pass (no answer, rate limits, server errors) with exponential backoff and honour Retry-After.
An answer that came and is invalid is retried here. The key is read from the environment when the server is first used;
no record, log, error or cache holds it.
"""

import hashlib
import importlib
import json
import os
import re
import weakref
from abc import abstractmethod
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from threading import Event
from typing import Any, ClassVar, NamedTuple, TypeVar
from urllib.parse import urlsplit

from harness import instrument
from harness.errors import ConfigError
from harness.providers import retries
from harness.providers.retries import Call, RequestError, error_message, mask_key
from harness.types.protocols import Component

NO_KEY = "none"  # sent to a server without keys
_INVALID_RETRIES = 3  # of a request whose answer is invalid: each answer is paid for
_BACKOFF_S = 1.0  # after the first invalid answer, twice as much after the second, ...

Value = TypeVar("Value")


class Sdk(NamedTuple):
    """A provider's package, ready for use; `status_error` has the attributes `status_code` and `body`."""

    client: Any
    close: Callable[[], None]
    connection_error: Any
    status_error: Any


class ApiClient(Component):
    """Client of a provider's server, or of one that speaks its protocol; each argument is a config key.

    Args:
        api_key_env: Environment variable that holds the key; only the provider's own server requires one.
        base_url: None is the provider's own server.
        concurrency: Requests in flight.
    """

    provider: ClassVar[str]  # also the name of the package and of our extra
    default_url: ClassVar[str]
    config_key: ClassVar[str] = "retriever.encoder"  # where in the config the settings are, for messages
    answer_setting: ClassVar[str]  # to check when answers are invalid
    request_settings: ClassVar[str]  # to check, beside the model, when a request is refused

    def __init__(
        self,
        model: str | None,
        *,
        api_key_env: str,
        base_url: str | None = None,
        timeout_s: float = 60,
        concurrency: int = 4,
        retries: int = 6,
    ) -> None:
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", api_key_env):  # the value is not shown: it may be a key
            raise ConfigError(
                f"{self._group}.api_key_env must be the NAME of an environment variable, in capitals, such as "
                "OPENAI_API_KEY"
            )
        if not timeout_s > 0:
            raise ConfigError(f"{self._group}.timeout_s={timeout_s} must be more than 0")
        self._require_at_least(1, concurrency=concurrency)
        self._require_at_least(0, retries=retries)
        self._model, self._url = model, _checked_url(base_url or self.default_url, self._group)
        self._key_env, self._timeout_s = api_key_env, timeout_s
        self._concurrency, self._retries = concurrency, retries
        self._sdk: Any = None
        self._key = ""

    @abstractmethod
    def _open(self, package: Any, local: bool) -> Sdk:
        """Return the package's client. `local`: the server is on this machine, where no proxy stands between."""

    @abstractmethod
    def _tokens(self, answer: Any) -> int | None:
        """Return the input tokens that an answer counts, None where it counts none."""

    @property
    def _group(self) -> str:
        return self.config_key.rpartition(".")[2]

    @property
    def _name(self) -> str:
        return f"{self.provider} {self._model!r} at {self._url}"

    def _require_at_least(self, minimum: int, **settings: float | None) -> None:
        """Raise `ConfigError` for a setting that is less."""
        for name, value in settings.items():
            if value is not None and not value >= minimum:
                raise ConfigError(f"{self._group}.{name}={value} must be at least {minimum}")

    def _connect(self) -> None:
        """Open the SDK's client once; its connections are kept and are closed with this object."""
        if self._sdk is not None:
            return
        with instrument.stage("load"):
            try:
                package = importlib.import_module(self.provider)
            except ImportError as error:
                raise ConfigError(
                    f"the package {self.provider} is needed ({error}): pip install 'retrieval-harness[{self.provider}]'"
                ) from None
            self._key = self._read_key()
            self._sdk = self._open(package, _is_local(self._url))
            weakref.finalize(self, self._sdk.close)

    def _read_key(self) -> str:
        key = os.environ.get(self._key_env, "").strip()
        if not key and self._url == self.default_url:
            raise ConfigError(
                f"{self.provider} wants a key and the environment variable {self._key_env} is not set; set it: "
                f"export {self._key_env}=...; or name another: {self.config_key}.api_key_env=NAME"
            )
        if not key.isascii() or any(not sign.isprintable() or sign.isspace() for sign in key):
            raise ConfigError(f"{self._key_env} holds no key: there is a blank or a special character in it")
        return key

    def _request(
        self, send: Callable[[], Any], read: Callable[[Any], Value], estimate: int, stop: Event
    ) -> tuple[Value, Call]:
        """Send a request until its answer is valid; return the answer's value and what it took.

        Args:
            send: Calls the SDK, which retries what may pass.
            read: Returns the value of an answer; a `ValueError` or one of structure means that the answer is invalid.
            estimate: Tokens of an answer that does not count them.
            stop: Set when the request is no longer wanted; it is then not retried.

        Raises:
            RequestError: There is no valid answer.
        """
        call = retries.active.call = Call(self._name, stop)
        for retry in range(min(self._retries, _INVALID_RETRIES) + 1):
            stop.wait(_BACKOFF_S * retry)
            tokens = estimate
            try:
                answer = send()
                tokens = int(self._tokens(answer) or estimate)
                value = read(answer)
                call.tokens += tokens
                return value, call
            except self._sdk.connection_error as error:
                cause = error.__cause__ or error
                call.status, problem = None, f"no answer: {type(cause).__name__}: {cause}"
            except self._sdk.status_error as error:
                call.status, problem = error.status_code, f"HTTP {error.status_code}: {error_message(error.body)}"
            except ValueError as error:  # no JSON, too
                call.status, problem = 200, f"invalid answer: {error}"
            except (AttributeError, IndexError, TypeError) as error:
                call.status, problem = 200, f"invalid answer: unexpected structure ({error})"
            call.problem = mask_key(problem.rstrip(": "), self._key)
            if call.status is None or call.status >= 300:
                break
            call.tokens += tokens
        tried = f" (tried {call.attempts} times)" if call.attempts > 1 else ""
        # raised outside of the handlers: the error of an SDK may hold the key
        raise RequestError(f"{self._name}: {call.problem}{tried}; {self._advice(call.status)}", call)

    def _advice(self, status: int | None) -> str:
        if status in (401, 403):
            return f"see the key in the environment variable {self._key_env}"
        if status is None or status == 404:
            return f"is this the server, and is it running? see {self.config_key}.base_url and {self.config_key}.model"
        if status == 429 or status >= 500:
            return f"give the command again later: it goes on; fewer requests at once: {self.config_key}.concurrency=1"
        if status < 300:
            return f"see {self.config_key}.base_url and {self.config_key}.{self.answer_setting}"
        return f"see {self.config_key}.model, {self.request_settings}"


class OpenAIClient(ApiClient):
    """Client of a server that speaks OpenAI's protocol. `extra_body`: request fields that only this server takes."""

    provider = "openai"
    default_url = "https://api.openai.com/v1"

    def __init__(
        self,
        model: str | None,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        extra_body: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, api_key_env=api_key_env, **settings)
        self._extra = dict(extra_body or {})

    @property
    def _extra_hash(self) -> str:
        extra = json.dumps(self._extra, sort_keys=True, default=str)  # hashed: it may hold a key
        return hashlib.blake2b(extra.encode(), digest_size=8).hexdigest()

    def _open(self, package: Any, local: bool) -> Sdk:
        http = package.DefaultHttpxClient(timeout=self._timeout_s, trust_env=not local, event_hooks=retries.HOOKS)
        client = package.OpenAI(
            api_key=self._key or NO_KEY,
            base_url=self._url,
            timeout=self._timeout_s,
            max_retries=self._retries,
            http_client=http,
        )
        return Sdk(client, http.close, package.APIConnectionError, package.APIStatusError)


def without_none(**fields: Any) -> dict[str, Any]:
    """Return the fields that are set."""
    return {name: value for name, value in fields.items() if value is not None}


def _checked_url(url: str, group: str) -> str:
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        parts, valid = urlsplit(""), None
    if "@" in url or "?" in url or "#" in url:  # it is not shown: it may hold a password
        raise ConfigError(
            f"{group}.base_url has a user, a password or a query in it, and it goes into the record; give scheme, host "
            f"and path alone, and the key in the environment variable that {group}.api_key_env names"
        )
    if not valid:
        raise ConfigError(f"{group}.base_url={url!r} is no address of a server, such as http://127.0.0.1:8000/v1")
    return parts._replace(netloc=parts.netloc.lower()).geturl().rstrip("/")


def _is_local(url: str) -> bool:
    """Return True for a server on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
