"""A server with an API: its address, the key to it, its package, and what its failures mean to the user.

The key is read from the environment when the server is first asked; no record, log, error or cache holds it.
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
from typing import Any, ClassVar
from urllib.parse import urlsplit

from harness import instrument
from harness.errors import ApiError, ConfigError
from harness.providers.requests import Failure, refused, unanswered
from harness.types.component import Component

NO_KEY = "none"  # what a server without keys is sent


class Server(Component):
    """A provider's server, or one that speaks its protocol; each argument is a config key.

    `base_url` None is the provider's own. `api_key_env` names the environment variable that holds the key; only the
    provider's own server insists on one.
    """

    provider: ClassVar[str]
    """Also the name of the package and of our extra."""
    official: ClassVar[str]
    key: ClassVar[str] = "retriever.encoder"
    """Where in the config its settings are, for messages."""
    about_answers: ClassVar[str]
    """The setting to see when its answers cannot be used."""
    about_requests: ClassVar[str]
    """Those to see, beside the model, when it refuses a request."""

    def __init__(
        self, model: str | None, *, api_key_env: str, base_url: str | None = None, timeout_s: float = 60
    ) -> None:
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", api_key_env):  # the value is not shown: it may be a key
            raise ConfigError(
                f"{self._short}.api_key_env must be the NAME of an environment variable, in capitals, such as "
                "OPENAI_API_KEY"
            )
        if not timeout_s > 0:
            raise ConfigError(f"{self._short}.timeout_s={timeout_s} must be more than 0")
        self._model, self._url = model, _checked_url(base_url or self.official, self._short)
        self._key_env, self._timeout_s = api_key_env, timeout_s
        self._client: Any = None
        self._key = ""

    @abstractmethod
    def _open(self, package: Any, own: bool) -> tuple[Any, Callable[[], None]]:
        """The package's client and what closes its connections. `own`: the server is on this machine."""

    @property
    def _short(self) -> str:
        return self.key.rpartition(".")[2]

    def _at_least(self, least: int, settings: Mapping[str, float | None]) -> None:
        """Refuse a setting that is less. Raises `ConfigError` naming it."""
        for name, value in settings.items():
            if value is not None and not value >= least:
                raise ConfigError(f"{self._short}.{name}={value} must be at least {least}")

    @property
    def _name(self) -> str:
        return f"{self.provider} {self._model!r} at {self._url}"

    def _connect(self) -> None:
        """Have a client; its connections stay open from one question to the next and are closed with this object."""
        if self._client is not None:
            return
        with instrument.stage("load"):
            try:
                package = importlib.import_module(self.provider)
            except ImportError as error:
                raise ConfigError(
                    f"the package {self.provider} is needed ({error}): pip install 'retrieval-harness[{self.provider}]'"
                ) from None
            self._key = self._found_key()
            self._client, close = self._open(package, _is_local(self._url))
            weakref.finalize(self, close)

    def _found_key(self) -> str:
        key = os.environ.get(self._key_env, "").strip()
        if not key and self._url == self.official:
            raise ConfigError(
                f"{self.provider} wants a key and the environment variable {self._key_env} is not set; set it: "
                f"export {self._key_env}=...; or name another: {self.key}.api_key_env=NAME"
            )
        if not key.isascii() or any(not sign.isprintable() or sign.isspace() for sign in key):
            raise ConfigError(f"{self._key_env} holds no key: there is a blank or a special character in it")
        return key

    def _error(self, failure: Failure, retries: int) -> ApiError:
        tried = f" (tried {retries + 1} times)" if retries else ""
        return ApiError(f"{self._name}: {failure.said}{tried}; {self._advice(failure.status)}")

    def _advice(self, status: int | None) -> str:
        if status in (401, 403):
            return f"see the key in the environment variable {self._key_env}"
        if status is None or status == 404:
            return f"is this the server, and is it running? see {self.key}.base_url and {self.key}.model"
        if status == 429 or status >= 500:
            return f"give the command again later: it goes on; fewer requests at once: {self.key}.concurrency=1"
        if status < 300:
            return f"see {self.key}.base_url and {self.key}.{self.about_answers}"
        return f"see {self.key}.model, {self.about_requests}"


class OpenAIServer(Server):
    """A server that speaks OpenAI's protocol. `extra_body`: fields of the request that only this server takes."""

    provider = "openai"
    official = "https://api.openai.com/v1"

    def __init__(self, model: str | None, *, extra_body: Mapping[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self._extra = dict(extra_body or {})

    @property
    def _extra_hash(self) -> str:
        extra = json.dumps(self._extra, sort_keys=True, default=str)  # hashed: it may hold a key
        return hashlib.blake2b(extra.encode(), digest_size=8).hexdigest()

    def _open(self, package: Any, own: bool) -> tuple[Any, Callable[[], None]]:
        http = package.DefaultHttpxClient(timeout=self._timeout_s, trust_env=not own)
        client = package.OpenAI(
            api_key=self._key or NO_KEY, base_url=self._url, timeout=self._timeout_s, max_retries=0, http_client=http
        )
        self._broken, self._refusing = package.APIConnectionError, package.APIStatusError
        return client, http.close

    def _created(self, create: Callable[..., Any], **asked: Any) -> Any:
        """The server's answer to one request, or a `Failure`."""
        try:
            return create(**asked, extra_body=self._extra or None)
        except self._refusing as error:
            return refused(error.status_code, error.response.headers, error.body, self._key)
        except self._broken as error:
            return unanswered(error, self._key)


def _checked_url(url: str, key: str) -> str:
    try:
        parts = urlsplit(url.strip())
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        parts, good = urlsplit(""), None
    if "@" in url or "?" in url or "#" in url:  # it is not shown: it may hold a password
        raise ConfigError(
            f"{key}.base_url has a user, a password or a query in it, and it goes into the record; give scheme, host "
            f"and path alone, and the key in the environment variable that {key}.api_key_env names"
        )
    if not good:
        raise ConfigError(f"{key}.base_url={url!r} is no address of a server, such as http://127.0.0.1:8000/v1")
    return parts._replace(netloc=parts.netloc.lower()).geturl().rstrip("/")


def _is_local(url: str) -> bool:
    """Whether a server is on this machine, where no proxy stands between."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
