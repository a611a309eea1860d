"""A server on the loopback that speaks OpenAI's and Cohere's protocols for embeddings, and misbehaves on demand.

Each request takes the next answer of the script; without one it is served well.
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
Vectors = Callable[[list[str]], list[list[float]]]


class Provider:
    """The server, with the bodies of its requests, the most that were in flight, and the answers that it gives."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self.script: list[Callable[[Handler], None]] = []
        self.after: Callable[[Handler], None] = well
        """The answer once the script is at its end."""
        self.requests: list[dict[str, Any]] = []
        self.paths: set[str] = set()
        self.keys: set[str] = set()
        self.most_in_flight = self._in_flight = self.connections_made = 0
        self.closing = threading.Event()
        self._lock, self._connections = threading.Lock(), set[socket.socket]()
        provider = self

        class Bound(Handler):
            served = provider

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bound)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def texts(self) -> list[str]:
        """Every text that came, in the order of the requests."""
        return [text for body in self.requests for text in texts_of(body)]

    def next_answer(self, path: str, body: dict[str, Any], key: str) -> Callable[["Handler"], None]:
        with self._lock:
            self.requests.append(body)
            self.paths.add(path)
            self.keys.add(key)
            return self.script.pop(0) if self.script else self.after

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        with self._lock:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def embedded(self, texts: list[str]) -> list[list[float]]:
        with self._lock:
            return self.vectors(texts)

    def connected(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)
            self.connections_made += 1

    def gone(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.discard(connection)

    @property
    def open_connections(self) -> int:
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
    protocol_version = "HTTP/1.1"  # connections stay open, as those of the real servers
    disable_nagle_algorithm = True  # else a body waits 40 ms behind its headers
    served: Provider
    body: dict[str, Any]

    def setup(self) -> None:
        super().setup()
        self.served.connected(self.connection)

    def finish(self) -> None:
        self.served.gone(self.connection)
        super().finish()

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.served.next_answer(self.path, self.body, self.headers.get("Authorization", ""))
        try:
            with self.served.in_flight():
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


def texts_of(body: dict[str, Any]) -> list[str]:
    return list(body["input"] if "input" in body else body["texts"])


def tokens_of(texts: Sequence[str]) -> int:
    """What this server counts as tokens."""
    return sum(len(text.split()) + 2 for text in texts)


def answered(handler: Handler, vectors: Sequence[Any], order: Sequence[int] | None = None) -> dict[str, Any]:
    """Return the body of a valid answer in the protocol of the request."""
    tokens = tokens_of(texts_of(handler.body))
    if handler.path.endswith("/embed"):
        billed = {"billed_units": {"input_tokens": tokens}}
        return {"id": "1", "response_type": "embeddings_by_type", "embeddings": {"float": vectors}, "meta": billed}
    assert handler.path.endswith("/embeddings"), handler.path
    rows = range(len(vectors)) if order is None else order
    data = [{"object": "embedding", "index": row, "embedding": vectors[row]} for row in rows]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": handler.body["model"], "usage": usage}


def refusal(handler: Handler, message: str, code: str | None = None) -> dict[str, Any]:
    """Return the body of a refusal in the protocol of the request."""
    return {"message": message} if handler.path.endswith("/embed") else {"error": {"message": message, "code": code}}


# ---- answers


def well(handler: Handler) -> None:
    texts = texts_of(handler.body)
    if "" in texts:
        refusing(400, "'$.input' is invalid.")(handler)
        return
    handler.send(200, answered(handler, handler.served.embedded(texts)))


def shuffled(handler: Handler) -> None:
    vectors = handler.served.embedded(texts_of(handler.body))
    handler.send(200, answered(handler, vectors, order=range(len(vectors) - 1, -1, -1)))


def without_usage(handler: Handler) -> None:
    body = answered(handler, handler.served.embedded(texts_of(handler.body)))
    handler.send(200, {name: value for name, value in body.items() if name not in ("usage", "meta")})


def changed(change: Callable[[list[list[float]]], Sequence[Any]]) -> Callable[[Handler], None]:
    """The vectors as `change` leaves them."""

    def answer(handler: Handler) -> None:
        handler.send(200, answered(handler, change(handler.served.embedded(texts_of(handler.body)))))

    return answer


short = changed(lambda vectors: vectors[:-1])
narrow = changed(lambda vectors: [vector[:-1] for vector in vectors])
ragged = changed(lambda vectors: [vectors[0][:-1], *vectors[1:]])
not_finite = changed(lambda vectors: [[float("nan"), *vectors[0][1:]], *vectors[1:]])
with_null = changed(lambda vectors: [[None, *vectors[0][1:]], *vectors[1:]])


def responding(content: Any) -> Callable[[Handler], None]:
    """Another body with status 200."""
    return lambda handler: handler.send(200, content)


def refusing(status: int, message: str = "no", code: str | None = None, **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send(status, refusal(handler, message, code), **headers)

    return answer


def repeating_the_key(status: int) -> Callable[[Handler], None]:
    """A refusal that has the key in it."""

    def answer(handler: Handler) -> None:
        key = handler.headers["Authorization"].removeprefix("Bearer ")
        handler.send(status, refusal(handler, f"Incorrect API key provided: {key}. Bearer {key}; see the page."))

    return answer


def too_late(handler: Handler) -> None:
    handler.served.closing.wait(30)
    handler.close_connection = True


def breaking_off(handler: Handler) -> None:
    """All of it is promised and half comes."""
    data = json.dumps(answered(handler, handler.served.embedded(texts_of(handler.body)))).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.close_connection = True


def together(n: int) -> Callable[[Handler], None]:
    """Answers only once n requests are there at the same time; 500 where they do not come."""
    barrier = threading.Barrier(n)

    def answer(handler: Handler) -> None:
        try:
            barrier.wait(timeout=30)
        except threading.BrokenBarrierError:
            refusing(500, "nobody else came")(handler)
            return
        well(handler)

    return answer


def vectors_of(retriever: Any) -> Vectors:
    """The vectors of a dense retriever's encoder; each text is encoded once."""
    known: dict[str, list[float]] = {}

    def vectors(texts: list[str]) -> list[list[float]]:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, retriever._encoder.encode(StringColumn(new), "query").tolist(), strict=True))
        return [known[text] for text in texts]

    return vectors


def recorded_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the SDKs' waits between attempts instead of waiting, and do without ours after an invalid answer."""
    waits: list[float] = []
    clock = SimpleNamespace(sleep=waits.append, time=time.time)
    for module in ("openai._base_client", "cohere.core.http_client"):
        monkeypatch.setattr(importlib.import_module(module), "time", clock)
    monkeypatch.setattr(client, "_BACKOFF_S", 0.0)
    return waits


@contextmanager
def serving(vectors: Vectors) -> Iterator[Provider]:
    provider = Provider(vectors)
    try:
        yield provider
    finally:
        provider.close()
