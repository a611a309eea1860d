"""Tests of harness/providers/client.py: connections, API keys and the server's address."""

import gc
import sys
import time
from pathlib import Path

import pytest
from support.api_server import KEY, count_tokens
from support.datasets import write_beir
from support.hosted_encoders import ENCODER_CLASSES, KEY_VARIABLES, URL_PATHS

from harness import __main__
from harness.errors import ConfigError
from harness.providers.client import _is_local
from harness.store import Store
from harness.types import StringColumn


def test_connections_stay_open_until_the_encoder_is_deleted(make_encoder, protocol, server):
    encoder = make_encoder(protocol, concurrency=1)
    for number in range(3):
        encoder.encode(StringColumn([f"query {number}"]), "query")
    assert server.n_connections == server.n_open_connections == 1
    del encoder
    gc.collect()
    for _ in range(6000):  # the server notices a little later; a minute is enough on any machine
        if not server.n_open_connections:
            break
        time.sleep(0.01)
    assert server.n_open_connections == 0


# ---- API keys


def test_the_key_is_in_no_record_and_the_cost_is(server, waits, monkeypatch, tmp_path, empty_cache, capsys):
    """Run a whole evaluation on the command line."""
    write_beir(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("EMBEDDINGS_API_KEY", KEY)
    arguments = ["retriever=openai_compatible", f"retriever.encoder.base_url={server.address}/v1"]
    arguments += ["retriever.encoder.model=minilm", "retriever.encoder.price_per_million_tokens=250"]
    arguments += ["dataset=folder", "dataset.path=tiny", "timing.latency_queries=1", "timing.repeats=1"]
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    assert stop.value.code == 0
    (record,) = Store(Path("results")).records()
    warm_up = 4 + 3 + 3  # documents, queries in one batch, single queries
    tokens = count_tokens(server.texts[warm_up : warm_up + 4])
    assert record.timing.index.counters[""].model_dump() == {
        "texts": 4,
        "requests": 1,
        "retries": 0,
        "tokens": tokens,
        "micro_usd": tokens * 250,
    }
    assert record.timing.searches[0].counters[""].micro_usd > 0
    assert record.timing.latency_counters[""].micro_usd > 0
    assert record.encoders[""].provider == "openai"
    assert record.encoders[""].base_url == f"{server.address}/v1"
    assert record.encoders[""].price_per_million_tokens == 250
    assert server.keys == {f"Bearer {KEY}"}
    out, err = capsys.readouterr()
    assert KEY not in out + err
    assert not any(KEY.encode() in path.read_bytes() for path in Path("results").rglob("*") if path.is_file())


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_names_the_variable_to_set(monkeypatch, protocol, value):
    monkeypatch.delenv(KEY_VARIABLES[protocol], raising=False)
    if value is not None:
        monkeypatch.setenv(KEY_VARIABLES[protocol], value)
    with pytest.raises(ConfigError) as error:
        ENCODER_CLASSES[protocol]("model").encode(StringColumn(["a"]), "query")
    message = str(error.value)
    assert f"{protocol} needs an API key" in message
    assert f"export {KEY_VARIABLES[protocol]}=" in message
    assert message.endswith("retriever.encoder.api_key_env=NAME")


def test_another_server_needs_no_key(make_encoder, protocol, server, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLES[protocol])
    make_encoder(protocol).encode(StringColumn(["a"]), "query")
    assert server.keys == {"Bearer none"}


def test_white_space_around_a_key_is_removed(make_encoder, protocol, server, monkeypatch):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    make_encoder(protocol, api_key_env="MY_KEY").encode(StringColumn(["a"]), "query")
    assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "null\x7f"])
def test_a_key_that_is_no_valid_header_is_an_error_that_does_not_show_it(make_encoder, protocol, monkeypatch, key):
    monkeypatch.setenv(KEY_VARIABLES[protocol], key)
    with pytest.raises(ConfigError) as error:
        make_encoder(protocol).encode(StringColumn(["a"]), "query")
    assert str(error.value).startswith(f"{KEY_VARIABLES[protocol]} is not an API key")
    assert key not in str(error.value)


def test_a_key_given_as_the_variables_name_is_an_error_that_does_not_show_it(protocol):
    for key in (KEY, "aB3dE5gH7jK9mN1pQ3sT5vW7xY9zA1cD3eF5gH7"):
        with pytest.raises(ConfigError, match="must be the NAME of an environment variable") as error:
            ENCODER_CLASSES[protocol]("model", api_key_env=key)
        assert key not in str(error.value)


# ---- The server's address


@pytest.mark.parametrize(
    "url", ["http://user:secret@host/v1", "https://host/v1?key=secret", "http://secret@host", "https://host/v1#secret"]
)
def test_a_url_with_a_secret_is_an_error_that_does_not_show_it(protocol, url):
    with pytest.raises(ConfigError, match=r"encoder\.base_url has a user, a password or a query in it") as error:
        ENCODER_CLASSES[protocol]("model", base_url=url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host/v1", "http://", "http://[::1", "http://host:port"])
def test_an_invalid_url_is_an_error(protocol, url):
    with pytest.raises(ConfigError) as error:
        ENCODER_CLASSES[protocol]("model", base_url=url)
    assert str(error.value).startswith(f"encoder.base_url={url!r}")
    assert str(error.value).endswith("such as http://127.0.0.1:8000/v1")


def test_base_url_null_ignores_the_sdks_environment_variables(server, protocol, monkeypatch):
    """`base_url: null`, which records and the cache store, must always mean the provider's server."""
    for name in ("OPENAI_BASE_URL", "CO_API_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv(KEY_VARIABLES[protocol], KEY)
    monkeypatch.setattr(ENCODER_CLASSES[protocol], "default_url", server.address + URL_PATHS[protocol])
    ENCODER_CLASSES[protocol]("minilm").encode(StringColumn(["a"]), "query")
    assert len(server.requests) == 1


def test_only_loopback_addresses_bypass_the_proxy(protocol, monkeypatch):
    for url in ("http://127.0.0.1:1/v1", "http://localhost/v1", "http://[::1]:80", "http://127.1.2.3"):
        assert _is_local(url)
    for url in (
        "http://10.0.0.1/v1",
        "https://api.openai.com/v1",
        "http://localhost.example.org",
        "http://[2001:db8::1]",
    ):
        assert not _is_local(url)
