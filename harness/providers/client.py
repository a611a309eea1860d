"""Clients of hosted APIs: URL, API key, SDK, retries and error messages.

The SDKs retry temporary failures (no answer, rate limits, server errors) with exponential backoff and honour the
Retry-After header. Invalid answers are retried here. The API key is read from the environment when the server is first
used, and is never written to a record, log, error message or cache.
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
_INVALID_RETRIES = 3  # fewer retries of invalid answers, because each answer is paid for
_BACKOFF_S = 1.0  # seconds to wait after the first invalid answer; two and three times as long after the next

Value = TypeVar("Value")


class Sdk(NamedTuple):
    """A provider's open SDK client and its exceptions; `status_error` has the attributes `status_code` and `body`."""

    client: Any
    close: Callable[[], None]
    connection_error: Any
    status_error: Any


class ApiClient(Component):
    """Client of a provider's server, or of one that speaks its protocol; each argument is a config key.

    Args:
        model: Name of the model at the provider.
        api_key_env: Environment variable with the API key, which is required for the provider's own server only.
        base_url: URL of the server; None for the provider's own server.
        timeout_s: Timeout of a request in seconds.
        concurrency: Maximum number of concurrent requests.
        retries: Maximum number of retries of a request.

    Raises:
        ConfigError: An argument has an invalid value.
    """

    provider: ClassVar[str]  # also the name of the SDK and of the extra that installs it
    default_url: ClassVar[str]
    config_key: ClassVar[str] = "retriever.encoder"  # config key of the settings, for messages
    answer_setting: ClassVar[str]  # setting that messages about invalid answers name
    request_settings: ClassVar[str]  # settings that messages about rejected requests name

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
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", api_key_env):  # the value is not shown, because it may be a key
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
        """Return the SDK's client; `local` is True for a server on this machine, which is reached without a proxy."""

    @abstractmethod
    def _tokens(self, answer: Any) -> int | None:
        """Return the number of input tokens reported in an answer; None if it reports none."""

    @property
    def _group(self) -> str:
        return self.config_key.rpartition(".")[2]

    @property
    def _name(self) -> str:
        return f"{self.provider} {self._model!r} at {self._url}"

    def _require_at_least(self, minimum: int, **settings: float | None) -> None:
        """Raise `ConfigError` for a setting below the minimum."""
        for name, value in settings.items():
            if value is not None and not value >= minimum:
                raise ConfigError(f"{self._group}.{name}={value} must be at least {minimum}")

    def _connect(self) -> None:
        """Open the SDK's client once; its connections stay open until this object is deleted."""
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
                f"{self.provider} needs an API key, and the environment variable {self._key_env} is not set; set it: "
                f"export {self._key_env}=...; or name another: {self.config_key}.api_key_env=NAME"
            )
        if not key.isascii() or any(not character.isprintable() or character.isspace() for character in key):
            raise ConfigError(f"{self._key_env} is not an API key: it has white space or a special character")
        return key

    def _request(
        self, send: Callable[[], Any], read: Callable[[Any], Value], estimate: int, stop: Event
    ) -> tuple[Value, Call]:
        """Send a request until its answer is valid; return the answer's value and the call with its counts.

        Args:
            send: Calls the SDK, which retries temporary failures.
            read: Returns the value of an answer. Raises `ValueError`, or an error of access, for an invalid one.
            estimate: Number of input tokens, used if the answer does not report it.
            stop: Set to cancel the request: it is not retried.

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
            except ValueError as error:  # also raised for an answer that is not JSON
                call.status, problem = 200, f"invalid answer: {error}"
            except (AttributeError, IndexError, TypeError) as error:
                call.status, problem = 200, f"invalid answer: unexpected structure ({error})"
            call.problem = mask_key(problem.rstrip(": "), self._key)
            if call.status is None or call.status >= 300:
                break
            call.tokens += tokens
        tried = f" (tried {call.attempts} times)" if call.attempts > 1 else ""
        # raised outside the handlers, because the SDK's exception may contain the API key
        raise RequestError(f"{self._name}: {call.problem}{tried}; {self._advice(call.status)}", call)

    def _advice(self, status: int | None) -> str:
        if status in (401, 403):
            return f"check the API key in the environment variable {self._key_env}"
        if status is None or status == 404:
            return f"check that the server is running, and check {self.config_key}.base_url and {self.config_key}.model"
        if status == 429 or status >= 500:
            return f"repeat the command later to resume; for fewer concurrent requests: {self.config_key}.concurrency=1"
        if status < 300:
            return f"check {self.config_key}.base_url and {self.config_key}.{self.answer_setting}"
        return f"check {self.config_key}.model, {self.request_settings}"


class OpenAIClient(ApiClient):
    """Client of a server with OpenAI's protocol.

    Args:
        model: The model, as for `ApiClient`.
        api_key_env: Environment variable with the API key.
        extra_body: Additional fields of the request body that the server accepts.
        settings: Other arguments of `ApiClient`.
    """

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
        extra = json.dumps(self._extra, sort_keys=True, default=str)  # hashed, because it may contain a key
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
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _checked_url(url: str, group: str) -> str:
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        parts, valid = urlsplit(""), None
    if "@" in url or "?" in url or "#" in url:  # it is not shown, because it may contain a password
        raise ConfigError(
            f"{group}.base_url has a user, a password or a query in it, which the record would show; give scheme, host "
            f"and path alone, and the key in the environment variable that {group}.api_key_env names"
        )
    if not valid:
        raise ConfigError(f"{group}.base_url={url!r} is not the URL of a server, such as http://127.0.0.1:8000/v1")
    return parts._replace(netloc=parts.netloc.lower()).geturl().rstrip("/")


def _is_local(url: str) -> bool:
    """Return True for a server on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
