"""Fixtures of the providers' tests: a server on the loopback that answers with MiniLM's vectors, and its encoders."""

import pytest
from support.api_server import KEY, embed_with, record_waits, serving
from support.hosted_encoders import ENCODER_CLASSES, KEY_VARIABLES, URL_PATHS, minilm_vectors

from harness.embedding_cache import cache
from harness.providers import hosted


@pytest.fixture(scope="module")
def embed(minilm):
    """Return the function that the server embeds with; its weights are loaded before a test changes the environment."""
    minilm_vectors(minilm, ["a"])
    return embed_with(minilm)


@pytest.fixture
def server(embed, monkeypatch):
    """Run a server that no request may reach through a proxy: the proxies of the environment do not exist."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(embed) as provider:
        yield provider


@pytest.fixture(params=list(ENCODER_CLASSES))
def protocol(request):
    """Return each provider's name in turn."""
    return request.param


@pytest.fixture
def make_encoder(server, waits, monkeypatch, empty_cache):
    """Return a function that constructs an encoder that sends its requests to the server."""
    for name in KEY_VARIABLES.values():
        monkeypatch.setenv(name, KEY)

    def make(protocol, model="minilm", **settings):
        settings = {"base_url": server.address + URL_PATHS[protocol], "timeout_s": 20, **settings}
        return ENCODER_CLASSES[protocol](model, **settings)

    return make


@pytest.fixture
def waits(monkeypatch):
    """Return the list of the waits between attempts, in seconds, which are recorded in place of waiting."""
    return record_waits(monkeypatch)


@pytest.fixture
def small_shards(monkeypatch):
    """Make shards of four texts, so that a few texts fill several."""
    monkeypatch.setattr(hosted, "_SHARD", 4)
    monkeypatch.setattr(hosted, "_MIN_BATCH", 1)
    monkeypatch.setattr(cache, "_MIN_TEXTS", 2)
