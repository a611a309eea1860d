"""A server on the loopback interface that speaks OpenAI's and Cohere's embedding protocols, and fails on demand.

An answer is a function of the request's handler. Each request takes the next answer of `Provider.script`, and
`Provider.default_answer` once the script is used up.
"""

import http.server
import importlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from harness.providers import client
from harness.types import StringColumn

KEY = "sk-test-0123456789abcdefSECRET"
SDK_MODULES = {"openai": "openai._base_client", "cohere": "cohere.core.http_client"}
"""The module of each SDK that waits between attempts."""
Embed = Callable[[list[str]], list[list[float]]]


class Provider:
    """The server. It records its requests and how many were in flight at once.

    Args:
        embed: The function that embeds the texts of a request.
    """

    def __init__(self, embed: Embed) -> None:
        self.embed = embed
        self.script: list[Callable[[Handler], None]] = []
        self.default_answer: Callable[[Handler], None] = valid_answer
        self.requests: list[dict[str, Any]] = []
        """The bodies of the requests."""
        self.paths: set[str] = set()
        self.keys: set[str] = set()
        self.max_in_flight = self._in_flight = self.n_connections = 0
        self.closing = threading.Event()
        self._lock, self._connections = threading.Lock(), set[socket.socket]()
        served_provider = self

        class BoundHandler(Handler):
            provider = served_provider

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BoundHandler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def texts(self) -> list[str]:
        """The texts of all requests, in order."""
        return [text for body in self.requests for text in request_texts(body)]

    def next_answer(self, path: str, body: dict[str, Any], key: str) -> Callable[["Handler"], None]:
        """Record a request and return the answer to it."""
        with self._lock:
            self.requests.append(body)
            self.paths.add(path)
            self.keys.add(key)
            return self.script.pop(0) if self.script else self.default_answer

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        with self._lock:
            self._in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self._in_flight)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def embed_texts(self, texts: list[str]) -> list[list[float]]:
        with self._lock:
            return self.embed(texts)

    def add_connection(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)
            self.n_connections += 1

    def remove_connection(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    @property
    def n_open_connections(self) -> int:
        return len(self._connections)

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        with self._lock:
            for connection in self._connections:
                connection.shutdown(socket.SHUT_RDWR)
        self.server.server_close()
        self.thread.join()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as with the real servers
    disable_nagle_algorithm = True  # without this a body waits 40 ms behind its headers
    provider: Provider
    body: dict[str, Any]

    def setup(self) -> None:
        super().setup()
        self.provider.add_connection(self.connection)

    def finish(self) -> None:
        self.provider.remove_connection(self.connection)
        super().finish()

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.provider.next_answer(self.path, self.body, self.headers.get("Authorization", ""))
        try:
            with self.provider.in_flight():
                answer(self)
        except (BrokenPipeError, ConnectionResetError):  # the client has given up
            self.close_connection = True

    def send(self, status: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in {"Date": self.date_time_string(), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def request_texts(body: dict[str, Any]) -> list[str]:
    """Return the texts of a request's body in either protocol."""
    return list(body["input"] if "input" in body else body["texts"])


def count_tokens(texts: Sequence[str]) -> int:
    """Return the number of tokens that this server bills."""
    return sum(len(text.split()) + 2 for text in texts)


def embeddings_body(handler: Handler, vectors: Sequence[Any], order: Sequence[int] | None = None) -> dict[str, Any]:
    """Return the body of a valid answer in the protocol of the request."""
    tokens = count_tokens(request_texts(handler.body))
    if handler.path.endswith("/embed"):
        billed = {"billed_units": {"input_tokens": tokens}}
        return {"id": "1", "response_type": "embeddings_by_type", "embeddings": {"float": vectors}, "meta": billed}
    assert handler.path.endswith("/embeddings"), handler.path
    rows = range(len(vectors)) if order is None else order
    data = [{"object": "embedding", "index": row, "embedding": vectors[row]} for row in rows]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": handler.body["model"], "usage": usage}


def error_body(handler: Handler, message: str, code: str | None = None) -> dict[str, Any]:
    """Return the body of an error in the protocol of the request."""
    return {"message": message} if handler.path.endswith("/embed") else {"error": {"message": message, "code": code}}


# ---- answers


def valid_answer(handler: Handler) -> None:
    texts = request_texts(handler.body)
    if "" in texts:
        http_error(400, "'$.input' is invalid.")(handler)
        return
    handler.send(200, embeddings_body(handler, handler.provider.embed_texts(texts)))


def reversed_order(handler: Handler) -> None:
    """Answer with the vectors in reverse order and the right index on each."""
    vectors = handler.provider.embed_texts(request_texts(handler.body))
    handler.send(200, embeddings_body(handler, vectors, order=range(len(vectors) - 1, -1, -1)))


def without_usage(handler: Handler) -> None:
    """Answer without the number of tokens."""
    body = embeddings_body(handler, handler.provider.embed_texts(request_texts(handler.body)))
    handler.send(200, {name: value for name, value in body.items() if name not in ("usage", "meta")})


def corrupted(change: Callable[[list[list[float]]], Sequence[Any]]) -> Callable[[Handler], None]:
    """Return an answer with the vectors that `change` returns."""

    def answer(handler: Handler) -> None:
        vectors = change(handler.provider.embed_texts(request_texts(handler.body)))
        handler.send(200, embeddings_body(handler, vectors))

    return answer


too_few_vectors = corrupted(lambda vectors: vectors[:-1])
too_few_dimensions = corrupted(lambda vectors: [vector[:-1] for vector in vectors])
unequal_dimensions = corrupted(lambda vectors: [vectors[0][:-1], *vectors[1:]])
nan_value = corrupted(lambda vectors: [[float("nan"), *vectors[0][1:]], *vectors[1:]])
null_value = corrupted(lambda vectors: [[None, *vectors[0][1:]], *vectors[1:]])


def json_answer(content: Any) -> Callable[[Handler], None]:
    """Return an answer of status 200 with this content."""
    return lambda handler: handler.send(200, content)


def http_error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Callable[[Handler], None]:
    """Return an answer with this status, message, code (OpenAI's protocol only) and headers."""

    def answer(handler: Handler) -> None:
        handler.send(status, error_body(handler, message, code), **headers)

    return answer


def error_with_key(status: int) -> Callable[[Handler], None]:
    """Return an error whose message repeats the request's API key."""

    def answer(handler: Handler) -> None:
        key = handler.headers["Authorization"].removeprefix("Bearer ")
        handler.send(status, error_body(handler, f"Incorrect API key provided: {key}. Bearer {key}; see the page."))

    return answer


def no_answer(handler: Handler) -> None:
    """Keep the request waiting until the client gives up or the server closes."""
    handler.provider.closing.wait(30)
    handler.close_connection = True


def truncated_body(handler: Handler) -> None:
    """Announce the whole body, send half of it and close the connection."""
    data = json.dumps(embeddings_body(handler, handler.provider.embed_texts(request_texts(handler.body)))).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def answer_together(n: int) -> Callable[[Handler], None]:
    """Return an answer that waits until `n` requests are in flight at the same time; an HTTP 500 if they never are."""
    barrier = threading.Barrier(n)

    def answer(handler: Handler) -> None:
        try:
            barrier.wait(timeout=30)
        except threading.BrokenBarrierError:
            http_error(500, "no other request came")(handler)
            return
        valid_answer(handler)

    return answer


def embed_with(retriever: Any) -> Embed:
    """Return a function that embeds texts with a dense retriever's encoder, each text once."""
    known: dict[str, list[float]] = {}

    def embed(texts: list[str]) -> list[list[float]]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, retriever._encoder.encode(StringColumn(new), "query").tolist(), strict=True))
        return [known[text] for text in texts]

    return embed


def record_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list that records the SDKs' waits between attempts, in seconds.

    Nothing waits: the SDKs' sleep is replaced, and the harness's own backoff after an invalid answer is set to 0.
    """
    waits: list[float] = []
    clock = SimpleNamespace(sleep=waits.append, time=time.time)
    for module in SDK_MODULES.values():
        monkeypatch.setattr(importlib.import_module(module), "time", clock)
    monkeypatch.setattr(client, "_BACKOFF_S", 0.0)
    return waits


@contextmanager
def serving(embed: Embed) -> Iterator[Provider]:
    """Run a server for a while."""
    provider = Provider(embed)
    try:
        yield provider
    finally:
        provider.close()
