"""Encoders by a hosted API, against a server on the loopback that answers with MiniLM's vectors, or misbehaves."""

import gc
import json
import logging
import pickle
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.api_server import (
    KEY,
    breaking_off,
    narrow,
    not_finite,
    ragged,
    recorded_waits,
    refusing,
    repeating_the_key,
    responding,
    serving,
    short,
    shuffled,
    together,
    tokens_of,
    too_late,
    vectors_of,
    well,
    with_null,
    without_usage,
)
from support.datasets import write_beir

from harness import __main__, instrument, versions
from harness.config import build
from harness.config.conf import options_of
from harness.datasets import folder
from harness.embedding_cache import cache
from harness.errors import ApiError, ConfigError
from harness.evaluation.timing import TimingPlan, measure
from harness.providers import api, batching, hosted, retries
from harness.providers.client import _is_local
from harness.retrievers.dense import Dense
from harness.store import Store
from harness.types import Corpus, Queries, StringColumn
from harness.types.protocols import parameters

TEXTS = [
    "Cats purr.",
    "",
    "Dogs bark at the moon.",
    "日本語の文書です。",
    "Bread is baked from flour, water and salt.",
    " ",
]
PATHS = {"openai": "/v1", "cohere": ""}
VARIABLES = {"openai": "OPENAI_API_KEY", "cohere": "CO_API_KEY"}
KINDS = {"openai": api.OpenAIEncoder, "cohere": api.CohereEncoder}
CONFIGS = ["openai_small", "openai_large", "openai_ada", "openai_compatible", "cohere_v3", "cohere_v4"]


@pytest.fixture(scope="module")
def behind(minilm):
    """The model behind the server, its weights loaded before a test changes the environment."""
    expected(minilm, ["a"])
    return vectors_of(minilm)


@pytest.fixture
def server(behind, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):  # nobody is there: no request may go that way
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serving(behind) as provider:
        yield provider


@pytest.fixture(params=list(KINDS))
def protocol(request):
    return request.param


@pytest.fixture
def encoder(server, waits, monkeypatch, empty_cache):
    """Return a function that makes an encoder of the server's."""
    for name in VARIABLES.values():
        monkeypatch.setenv(name, KEY)

    def made(protocol, model="minilm", **settings):
        settings = {"base_url": server.address + PATHS[protocol], "timeout_s": 20, **settings}
        return KINDS[protocol](model, **settings)

    return made


@pytest.fixture
def waits(monkeypatch):
    """The waits between attempts, which are not waited for."""
    return recorded_waits(monkeypatch)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(hosted, "_SHARD", 4)
    monkeypatch.setattr(hosted, "_MIN_BATCH", 1)
    monkeypatch.setattr(cache, "_MIN_TEXTS", 2)


def numbered(n):
    return [f"text number {number} of many" for number in range(n)]


def expected(minilm, texts):
    return minilm._encoder.encode(StringColumn(texts), "query").numpy()


def assert_same(embeddings, minilm, texts=TEXTS):
    assert isinstance(embeddings, torch.Tensor)
    assert embeddings.dtype == torch.float32
    assert embeddings.device.type == "cpu"
    np.testing.assert_allclose(embeddings.numpy(), expected(minilm, texts), atol=1e-6)


def recorded(work):
    with instrument.recording() as seen:
        work()
    return seen.phase().counters[""].model_dump(), seen.encoders[""]


# ---- requests and answers


@pytest.mark.parametrize("side", ["query", "document"])
def test_vectors_are_those_of_the_server_in_the_order_of_the_texts(encoder, protocol, side, minilm, server):
    assert_same(encoder(protocol, batch_texts=2).encode(StringColumn(TEXTS), side), minilm)
    assert len(server.requests) == 3
    assert server.paths == {{"openai": "/v1/embeddings", "cohere": "/v2/embed"}[protocol]}
    assert server.keys == {f"Bearer {KEY}"}


def test_an_openai_request_has_no_field_that_other_servers_lack(encoder, server):
    encoder("openai").encode(StringColumn(["a text"]), "query")
    assert server.requests == [{"model": "minilm", "input": ["a text"], "encoding_format": "float"}]


def test_cohere_is_sent_the_side_of_a_text(encoder, server):
    for side in ("query", "document"):
        encoder("cohere").encode(StringColumn(["a text"]), side)
        fields = {"model": "minilm", "texts": ["a text"], "embedding_types": ["float"], "truncate": "END"}
        assert server.requests.pop() == {**fields, "input_type": f"search_{side}"}


def test_dimensions_length_and_a_servers_own_fields_are_sent_where_they_are_set(encoder, server):
    text = StringColumn(["a text"])
    encoder("openai", dimensions=384, extra_body={"truncate_prompt_tokens": -1}).encode(text, "query")
    encoder("cohere", dimensions=384, max_tokens=100).encode(text, "query")
    assert server.requests[0]["dimensions"] == 384
    assert server.requests[0]["truncate_prompt_tokens"] == -1
    assert (server.requests[1]["output_dimension"], server.requests[1]["max_tokens"]) == (384, 100)


def test_prompts_go_before_the_texts_of_their_side(encoder, protocol, server):
    made = encoder(protocol, query_prompt="ask: ", document_prompt="say: ")
    made.encode(StringColumn(["cats", ""]), "query")
    made.encode(StringColumn(["cats", ""]), "document")
    assert server.texts == ["ask: cats", "ask: ", "say: cats", "say: "]


def test_an_empty_text_is_sent_as_a_blank(encoder, protocol, server, minilm):
    assert_same(encoder(protocol).encode(StringColumn(["", "a"]), "document"), minilm, ["", "a"])
    assert server.texts == [" ", "a"]


def test_no_texts_ask_nothing(encoder, protocol, server):
    made = encoder(protocol)
    assert made.encode(StringColumn([]), "query").shape == (0, 0)
    made.encode(StringColumn(["a"]), "document")
    assert made.encode(StringColumn([]), "query").shape == (0, 384)
    assert len(server.requests) == 1


def test_an_answer_in_another_order_is_put_right_by_its_index(encoder, server, minilm):
    server.after = shuffled
    assert_same(encoder("openai").encode(StringColumn(TEXTS), "document"), minilm)


@pytest.mark.parametrize(("normalize", "length"), [(True, 1.0), (False, 3.0)])
def test_vectors_are_normalised_only_where_that_is_asked_for(encoder, protocol, server, normalize, length):
    inner = server.vectors
    server.vectors = lambda texts: [[3 * value for value in vector] for vector in inner(texts)]
    embeddings = encoder(protocol, normalize=normalize).encode(StringColumn(["a", "b"]), "document")
    np.testing.assert_allclose(embeddings.norm(dim=1).numpy(), length, rtol=1e-5)


def test_a_request_keeps_both_limits(encoder, protocol, server, minilm):
    texts = [*numbered(20), "long " * 400]
    assert_same(encoder(protocol, batch_texts=8, batch_tokens=60).encode(StringColumn(texts), "query"), minilm, texts)
    batches = [body.get("input") or body["texts"] for body in server.requests]
    sizes = [(len(batch), sum(map(batching.estimate_tokens, batch))) for batch in batches]
    assert sorted(server.texts) == sorted(texts)
    assert all(n == 1 or (n <= 8 and tokens <= 60) for n, tokens in sizes)
    assert max(n for n, _ in sizes) > 1


def test_spans_cover_every_text_once_within_the_limits():
    rng = np.random.default_rng(0)
    texts = ["x" * int(n) for n in rng.integers(0, 400, 300)]
    spans = list(batching.split(texts, 16, 500))
    assert [row for span in spans for row in range(span.start, span.stop)] == list(range(300))
    for span in spans:
        part = texts[span]
        assert len(part) == 1 or (len(part) <= 16 and sum(map(batching.estimate_tokens, part)) <= 500)
    assert list(batching.split([], 16, 500)) == []


@pytest.mark.parametrize("text", ["plain words " * 50, "日本語の文書です。" * 20, "🦊" * 60])
def test_a_cut_text_is_the_beginning_of_the_whole_one_and_within_the_limit(text):
    for limit in (1, 2, 7, 50):
        cut = batching.truncate(text, limit)
        assert text.startswith(cut)
        assert batching.estimate_tokens(cut) <= limit
        assert batching.estimate_tokens(text[: len(cut) + 1]) > limit


def test_texts_over_the_length_are_cut_and_counted_for_openai_and_left_to_cohere(encoder, server):
    texts = StringColumn(["short", "long " * 100])
    counts, _ = recorded(lambda: encoder("openai", max_tokens=10).encode(texts, "document"))
    assert counts["truncated"] == 1
    assert server.requests.pop()["input"] == ["short", ("long " * 100)[:29]]
    counts, _ = recorded(lambda: encoder("cohere", max_tokens=10).encode(texts, "document"))
    assert "truncated" not in counts
    assert server.requests.pop()["texts"] == list(texts)


# ---- requests in flight


def test_as_many_requests_as_allowed_are_in_flight_and_never_more(encoder, protocol, server, minilm, monkeypatch):
    monkeypatch.setattr(hosted, "_MIN_BATCH", 1)
    server.after = together(3)
    texts = numbered(24)
    assert_same(encoder(protocol, batch_texts=2, concurrency=3).encode(StringColumn(texts), "document"), minilm, texts)
    assert len(server.requests) == 12
    assert server.most_in_flight == 3


def test_texts_that_fit_one_request_are_spread_over_those_that_may_be_in_flight(encoder, server, monkeypatch):
    encoder("openai", concurrency=3).encode(StringColumn(numbered(60)), "query")
    assert sorted(len(body["input"]) for body in server.requests) == [20, 20, 20]
    server.requests.clear()
    encoder("openai", concurrency=3).encode(StringColumn(numbered(20)), "query")
    assert sorted(len(body["input"]) for body in server.requests) == [4, 16], "so few are not worth three requests"


def test_a_request_that_fails_for_good_ends_the_others(encoder, protocol, server):
    server.script, server.after = [refusing(400)], too_late
    made = encoder(protocol, batch_texts=1, concurrency=2, timeout_s=2, retries=1000)
    with pytest.raises(ApiError, match="HTTP 400"):
        made.encode(StringColumn(numbered(64)), "document")
    assert [thread for thread in threading.enumerate() if thread.name.startswith(protocol)] == []
    assert len(server.requests) < 10


def test_connections_stay_open_between_questions_and_end_with_the_encoder(encoder, protocol, server):
    made = encoder(protocol, concurrency=1)
    for number in range(3):
        made.encode(StringColumn([f"query {number}"]), "query")
    assert server.connections_made == server.open_connections == 1
    del made
    gc.collect()
    for _ in range(500):
        if not server.open_connections:
            break
        time.sleep(0.01)
    assert server.open_connections == 0


# ---- retries

PASSING = {
    "rate limit": refusing(429, "slow down"),
    "server error": refusing(500),
    "overload": refusing(503),
    "bad gateway in HTML": lambda handler: handler.send(502, b"<html>Bad Gateway</html>"),
    "broken off": breaking_off,
    "too few": short,
    "ragged": ragged,
    "not finite": not_finite,
    "null": with_null,
    "no list": responding("hello"),
    "other JSON": responding({"data": None, "embeddings": None}),
    "no JSON": lambda handler: handler.send(200, b'{"data": [{"embed'),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_passing_fault_is_retried(encoder, protocol, server, minilm, waits, fault):
    server.script = [PASSING[fault]]
    made = encoder(protocol)
    counts, _ = recorded(lambda: assert_same(made.encode(StringColumn(TEXTS), "document"), minilm))
    assert len(server.requests) == 2
    assert server.requests[0] == server.requests[1]
    assert (counts["requests"], counts["retries"]) == (2, 1)
    by_sdk = fault in ("rate limit", "server error", "overload", "bad gateway in HTML", "broken off")
    assert len(waits) == by_sdk, "an invalid answer is retried by the harness"


def test_a_time_out_is_retried(encoder, protocol, server, minilm, waits):
    server.script = [too_late]
    assert_same(encoder(protocol, timeout_s=1).encode(StringColumn(["a"]), "document"), minilm, ["a"])
    assert len(server.requests) == 2
    assert len(waits) == 1


def test_tokens_of_an_invalid_answer_are_counted(encoder, protocol, server, waits):
    server.script = [short]
    counts, _ = recorded(lambda: encoder(protocol).encode(StringColumn(["one two", "three"]), "document"))
    assert counts["tokens"] == 2 * tokens_of(["one two", "three"])


def test_retry_after_is_respected(encoder, protocol, server, waits):
    server.script = [refusing(429, Retry_After="7"), refusing(429, Retry_After=formatdate(time.time() + 30))]
    encoder(protocol).encode(StringColumn(["a"]), "document")
    assert waits == [7, pytest.approx(30, abs=5)]


def test_a_long_retry_after_is_an_error_or_shortened_as_the_sdk_does(encoder, server, waits):
    server.script = [refusing(429, "come back later", Retry_After="3600")] * 2
    with pytest.raises(ApiError, match=r"HTTP 429: come back later; repeat the command later"):
        encoder("openai").encode(StringColumn(["a"]), "document")
    assert waits == []
    encoder("cohere").encode(StringColumn(["a"]), "document")
    assert waits == [60]


def test_backoff_grows_until_the_retries_are_used_up(encoder, protocol, server, waits):
    server.after = refusing(500, "out of order")
    with pytest.raises(ApiError) as error:
        encoder(protocol, retries=8).encode(StringColumn(["a"]), "document")
    assert str(error.value) == (
        f"{protocol} 'minilm' at {server.address}{PATHS[protocol]}: HTTP 500: out of order (tried 9 times); "
        "repeat the command later to resume; for fewer concurrent requests: retriever.encoder.concurrency=1"
    )
    assert len(server.requests) == 9
    assert len(waits) == 8
    assert waits[0] < waits[2] < waits[4] <= 60


def test_without_retries_a_failure_is_an_error_at_once(encoder, protocol, server, waits):
    for answer in (refusing(503), short):
        server.script = [answer]
        with pytest.raises(ApiError):
            encoder(protocol, retries=0).encode(StringColumn(["a"]), "document")
    assert len(server.requests) == 2
    assert waits == []


def test_a_retry_is_logged(encoder, protocol, server, waits, caplog):
    server.script = [refusing(429, "slow down", Retry_After="7"), short]
    encoder(protocol).encode(StringColumn(["a"]), "document")
    messages = [record.getMessage() for record in caplog.records if record.name == retries.__name__]
    name = f"{protocol} 'minilm' at {server.address}{PATHS[protocol]}"
    assert messages == [f"{name}: HTTP 429; retry 1", f"{name}: invalid answer: 0 vectors for 1 texts; retry 2"]


# ---- errors

ADVICE = {
    400: "check retriever.encoder.model, .dimensions and, for texts that are too long, .max_tokens and .batch_tokens",
    401: "check the API key in the environment variable {variable}",
    403: "check the API key in the environment variable {variable}",
    404: "check that the server is running, and check retriever.encoder.base_url and retriever.encoder.model",
    422: "check retriever.encoder.model, .dimensions and, for texts that are too long, .max_tokens and .batch_tokens",
}


@pytest.mark.parametrize("status", ADVICE)
def test_a_refusal_is_an_error_at_once_that_says_who_why_and_what_to_do(encoder, protocol, server, waits, status):
    server.after = refusing(status, "that will not do")
    with pytest.raises(ApiError) as error:
        encoder(protocol).encode(StringColumn(["a"]), "document")
    advice = ADVICE[status].format(variable=VARIABLES[protocol])
    assert str(error.value) == (
        f"{protocol} 'minilm' at {server.address}{PATHS[protocol]}: HTTP {status}: that will not do; {advice}"
    )
    assert len(server.requests) == 1
    assert waits == []


def test_an_error_can_be_sent_to_another_process(encoder, server, waits):
    server.after = refusing(401, "no such key")
    with pytest.raises(ApiError) as error:
        encoder("openai").encode(StringColumn(["a"]), "document")
    copy = pickle.loads(pickle.dumps(error.value))
    assert isinstance(copy, ApiError)
    assert str(copy) == str(error.value)


def test_an_exhausted_quota_is_not_retried(encoder, server, waits):
    server.after = refusing(429, "You exceeded your current quota.", code="insufficient_quota")
    with pytest.raises(ApiError, match="HTTP 429: You exceeded your current quota"):
        encoder("openai").encode(StringColumn(["a"]), "document")
    assert len(server.requests) == 1
    assert waits == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (short, "1 vectors for 2 texts"),
        (ragged, "vectors of 383 and 384 dimensions"),
        (not_finite, "a vector with a value that is not finite"),
        (with_null, "a vector with a value that is not finite"),
        (responding({"data": 5, "embeddings": {"float": 5}}), "unexpected structure"),
        (responding({"data": [], "embeddings": {"float": []}}), "0 vectors for 2 texts"),
        (narrow, "vectors of 383 dimensions, not 384"),
    ],
)
def test_an_invalid_answer_is_retried_a_few_times_and_then_refused(encoder, protocol, server, waits, fault, message):
    server.after = fault
    with pytest.raises(ApiError) as error:
        encoder(protocol, dimensions=384).encode(StringColumn(["a", "b"]), "document")
    assert f": invalid answer: {message}" in str(error.value)
    assert " (tried 4 times); check retriever.encoder.base_url" in str(error.value)
    assert len(server.requests) == 4


def test_an_index_that_does_not_count_up_is_refused(encoder, server, waits):
    vector = [0.0] * 384
    data = [{"object": "embedding", "index": 0, "embedding": vector} for _ in range(2)]
    server.after = responding({"object": "list", "data": data, "model": "minilm"})
    with pytest.raises(ApiError, match="vectors whose index does not count from 0 on"):
        encoder("openai").encode(StringColumn(["a", "b"]), "document")


def test_one_dimension_holds_from_the_first_answer_on(encoder, protocol, server, waits, minilm):
    made = encoder(protocol)
    made.encode(StringColumn(["a"]), "document")
    server.script = [narrow]
    assert_same(made.encode(StringColumn(["b"]), "query"), minilm, ["b"])
    server.after = narrow
    with pytest.raises(ApiError, match="vectors of 383 dimensions, not 384"):
        made.encode(StringColumn(["c"]), "query")


def test_a_server_that_is_not_there_is_named_with_what_to_do(encoder, protocol, server, waits):
    server.close()
    with pytest.raises(ApiError) as error:
        encoder(protocol, retries=2).encode(StringColumn(["a"]), "document")
    message = str(error.value)
    assert message.startswith(f"{protocol} 'minilm' at {server.address}{PATHS[protocol]}: no answer: ConnectError: ")
    assert message.endswith(
        "(tried 3 times); check that the server is running, and check retriever.encoder.base_url and "
        "retriever.encoder.model"
    )
    assert len(waits) == 2


def test_a_page_instead_of_a_message_is_shown_short(encoder, protocol, server):
    server.after = lambda handler: handler.send(404, b"<html>" + b"nothing here " * 1000)
    with pytest.raises(ApiError) as error:
        encoder(protocol).encode(StringColumn(["a"]), "document")
    assert "HTTP 404: <html>nothing here nothing" in str(error.value)
    assert len(str(error.value)) < 600


# ---- the key


@pytest.mark.parametrize("status", [400, 401, 429])
def test_the_key_is_in_no_error_log_or_cache_even_where_the_server_repeats_it(
    encoder, protocol, server, waits, caplog, empty_cache, small_shards, status
):
    caplog.set_level(logging.DEBUG)
    server.script = [repeating_the_key(500)]
    made = encoder(protocol)
    made.encode(StringColumn(numbered(8)), "document")
    server.after = repeating_the_key(status)
    with pytest.raises(ApiError) as error:
        made.encode(StringColumn(["other"]), "document")
    assert "Incorrect API key provided: ***. Bearer ***" in str(error.value)
    assert error.value.__context__ is None
    assert KEY not in str(error.value) + repr(error.value) + repr(made)
    assert KEY not in caplog.text
    assert [record for record in caplog.records if KEY in str(vars(record))] == []
    files = [path for path in empty_cache.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert not any(KEY.encode() in path.read_bytes() for path in files)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("wrong: sk-proj-ab12****wxyz.", "wrong: ***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        (f"key {'a1B2' * 10}!", "key ***!"),
        ("request 5a1e3c9e-1b7a-4b6e-9d59-1d2f0c3b4a5d failed", "request 5a1e3c9e-1b7a-4b6e-9d59-1d2f0c3b4a5d failed"),
        ("my secret word", "my *** word"),
    ],
)
def test_what_looks_like_a_key_is_masked(text, masked):
    assert retries.mask_key(text, "secret") == masked


def test_the_key_is_in_no_record(server, waits, monkeypatch, tmp_path, empty_cache, capsys):
    """The command as a user types it; the record has what it cost."""
    write_beir(tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("EMBEDDINGS_API_KEY", KEY)
    arguments = ["retriever=openai_compatible", f"retriever.encoder.base_url={server.address}/v1"]
    arguments += ["retriever.encoder.model=minilm", "retriever.encoder.price_per_million_tokens=250"]
    arguments += ["dataset=folder", "dataset.path=made", "timing.latency_queries=1", "timing.repeats=1"]
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    with pytest.raises(SystemExit) as stop:
        __main__.main()
    assert stop.value.code == 0
    (record,) = Store(Path("results")).records()
    tokens = tokens_of(server.texts[7:11])
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
def test_the_providers_own_server_wants_a_key_and_says_which_variable_to_set(monkeypatch, protocol, value):
    monkeypatch.delenv(VARIABLES[protocol], raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLES[protocol], value)
    with pytest.raises(ConfigError) as error:
        KINDS[protocol]("model").encode(StringColumn(["a"]), "query")
    assert str(error.value) == (
        f"{protocol} needs an API key, and the environment variable {VARIABLES[protocol]} is not set; set it: "
        f"export {VARIABLES[protocol]}=...; or name another: retriever.encoder.api_key_env=NAME"
    )


def test_another_server_is_asked_without_a_key_where_none_is_set(encoder, protocol, server, monkeypatch):
    monkeypatch.delenv(VARIABLES[protocol])
    encoder(protocol).encode(StringColumn(["a"]), "query")
    assert server.keys == {"Bearer none"}


def test_a_key_from_a_file_may_have_a_line_break_behind_it(encoder, protocol, server, monkeypatch):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    encoder(protocol, api_key_env="MY_KEY").encode(StringColumn(["a"]), "query")
    assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "null\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(encoder, protocol, monkeypatch, key):
    monkeypatch.setenv(VARIABLES[protocol], key)
    with pytest.raises(ConfigError) as error:
        encoder(protocol).encode(StringColumn(["a"]), "query")
    assert str(error.value) == f"{VARIABLES[protocol]} is not an API key: it has white space or a special character"


def test_a_key_in_the_place_of_its_variables_name_is_refused_and_not_shown(protocol):
    for key in (KEY, "aB3dE5gH7jK9mN1pQ3sT5vW7xY9zA1cD3eF5gH7"):
        with pytest.raises(ConfigError, match="must be the NAME of an environment variable") as error:
            KINDS[protocol]("model", api_key_env=key)
        assert key not in str(error.value)


# ---- the server's address


@pytest.mark.parametrize(
    "url", ["http://user:secret@host/v1", "https://host/v1?key=secret", "http://secret@host", "https://host/v1#secret"]
)
def test_an_address_with_a_secret_in_it_is_refused_and_not_shown(protocol, url):
    with pytest.raises(ConfigError, match=r"encoder\.base_url has a user, a password or a query in it") as error:
        KINDS[protocol]("model", base_url=url)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host/v1", "http://", "http://[::1", "http://host:port"])
def test_an_address_that_is_none_is_refused(protocol, url):
    with pytest.raises(ConfigError) as error:
        KINDS[protocol]("model", base_url=url)
    assert str(error.value) == f"encoder.base_url={url!r} is not the URL of a server, such as http://127.0.0.1:8000/v1"


def test_the_providers_own_address_is_asked_whatever_the_packages_variables_say(server, protocol, monkeypatch):
    """`base_url: null` is in the record and in the cache's key, and means one server."""
    for name in ("OPENAI_BASE_URL", "CO_API_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv(VARIABLES[protocol], KEY)
    monkeypatch.setattr(KINDS[protocol], "default_url", server.address + PATHS[protocol])
    KINDS[protocol]("minilm").encode(StringColumn(["a"]), "query")
    assert len(server.requests) == 1


def test_only_a_server_on_this_machine_is_asked_past_the_proxy(protocol, monkeypatch):
    for url in ("http://127.0.0.1:1/v1", "http://localhost/v1", "http://[::1]:80", "http://127.1.2.3"):
        assert _is_local(url)
    for url in (
        "http://10.0.0.1/v1",
        "https://api.openai.com/v1",
        "http://localhost.example.org",
        "http://[2001:db8::1]",
    ):
        assert not _is_local(url)


# ---- what is kept, and what it costs


def test_a_killed_run_goes_on_where_it_stopped(encoder, protocol, server, minilm, small_shards):
    texts = numbered(20)
    server.script = [well, well, refusing(400, "killed")]
    made = encoder(protocol, concurrency=1)
    with pytest.raises(ApiError, match="killed"):
        made.encode(StringColumn(texts), "document")
    assert server.texts == texts[:12]
    server.requests.clear()
    assert_same(encoder(protocol, concurrency=1).encode(StringColumn(texts), "document"), minilm, texts)
    assert server.texts == texts[8:], "two shards of four were kept"


KILLED = """
import sys
from harness.embedding_cache import cache
from harness.providers import api, hosted
from harness.types import StringColumn
hosted._SHARD, hosted._MIN_BATCH, cache._MIN_TEXTS = 4, 1, 2
encoder = api.OpenAIEncoder("minilm", base_url=sys.argv[1], timeout_s=20)
encoder.encode(StringColumn([f"text number {number} of many" for number in range(20)]), "document")
"""


def test_what_a_killed_process_has_paid_for_is_not_paid_again(encoder, server, minilm, small_shards):
    server.script, server.after = [well] * 8, too_late
    process = subprocess.Popen([sys.executable, "-c", KILLED, f"{server.address}/v1"])
    while len(server.requests) <= 8 and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    assert sorted(server.texts[:8]) == numbered(20)[:8]
    server.requests.clear()
    server.after = well
    assert_same(encoder("openai", concurrency=1).encode(StringColumn(numbered(20)), "document"), minilm, numbered(20))
    assert server.texts == numbered(20)[8:]


def test_kept_vectors_are_not_asked_for_again_and_their_price_stays(encoder, protocol, server, small_shards):
    texts = StringColumn(numbered(10))
    made = encoder(protocol, price_per_million_tokens=100)
    first, facts = recorded(lambda: made.encode(texts, "document"))
    before = len(server.requests)
    again, _ = recorded(lambda: encoder(protocol, price_per_million_tokens=100).encode(texts, "document"))
    assert len(server.requests) == before
    assert first == again
    assert first["texts"] == 10
    assert first["tokens"] == tokens_of(list(texts))
    assert first["micro_usd"] == 100 * first["tokens"]
    assert facts["price_per_million_tokens"] == 100
    assert facts["dimensions"] == 384


def test_queries_are_never_kept(encoder, protocol, server, small_shards, empty_cache):
    for _ in range(2):
        encoder(protocol).encode(StringColumn(numbered(8)), "query")
    assert len(server.texts) == 16
    assert not list(empty_cache.rglob("*.safetensors"))


def test_nothing_is_kept_without_the_cache(encoder, protocol, server, small_shards, empty_cache):
    encoder(protocol, cache=False).encode(StringColumn(numbered(8)), "document")
    assert not list(empty_cache.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "other",
    [
        {"model": "other"},
        {"dimensions": 384},
        {"document_prompt": "say: "},
        {"max_tokens": 5},
        {"extra_body": {"truncate_prompt_tokens": -1}},
        {"base_url": "/other"},
    ],
)
def test_vectors_are_kept_apart_by_all_that_they_depend_on(encoder, server, small_shards, other):
    encoder("openai").encode(StringColumn(numbered(4)), "document")
    before = len(server.requests)
    if "base_url" in other:  # the same server by another name
        other = {"base_url": server.address.replace("127.0.0.1", "localhost") + "/v1"}
    encoder("openai", **other).encode(StringColumn(numbered(4)), "document")
    assert len(server.requests) > before


def test_a_slash_or_capitals_make_no_other_server(encoder, server, small_shards):
    encoder("openai").encode(StringColumn(numbered(4)), "document")
    before = len(server.requests)
    encoder("openai", base_url=f"{server.address.replace('http', 'HTTP')}/v1/").encode(
        StringColumn(numbered(4)), "document"
    )
    assert len(server.requests) == before


def test_the_normalisation_the_key_and_the_price_do_not_make_them_other_vectors(encoder, server, small_shards):
    texts = StringColumn(numbered(4))
    encoder("openai").encode(texts, "document")
    before = len(server.requests)
    made = encoder("openai", normalize=False, api_key_env="ANOTHER", price_per_million_tokens=1, concurrency=2)
    made.encode(texts, "document")
    assert len(server.requests) == before


def test_a_model_that_changed_behind_its_name_is_noticed_by_its_dimensions(encoder, protocol, server, small_shards):
    encoder(protocol).encode(StringColumn(numbered(4)), "document")
    made = encoder(protocol)
    server.after = narrow
    made.encode(StringColumn(["a"]), "query")
    with pytest.raises(ApiError, match=r"the cache holds vectors of 384 dimensions, not 383.*resume=false"):
        made.encode(StringColumn(numbered(4)), "document")


def test_tokens_are_estimated_where_the_server_counts_none(encoder, protocol, server):
    server.after = without_usage
    texts = ["one two three", "four"]
    counts, _ = recorded(lambda: encoder(protocol).encode(StringColumn(texts), "document"))
    assert counts["tokens"] == sum(map(batching.estimate_tokens, texts)) == 7
    assert "micro_usd" not in counts, "without a price there is no cost"


def test_a_small_price_is_rounded_once_for_many_requests(encoder, protocol, server, monkeypatch):
    monkeypatch.setattr(hosted, "_MIN_BATCH", 1)
    made = encoder(protocol, batch_texts=1, price_per_million_tokens=0.02)
    counts, _ = recorded(lambda: made.encode(StringColumn(numbered(50)), "query"))
    assert counts["requests"] == 50
    assert counts["micro_usd"] == round(0.02 * counts["tokens"]) > 0


def test_progress_counts_every_text(encoder, protocol, server, small_shards):
    events = []

    class Listener:
        def begin(self, name, total):
            events.append((name, total))
            return lambda n: events.append(n) if name == "encode" else None

        def end(self, name, wall_s):
            pass

    with instrument.listening(Listener()):
        encoder(protocol).encode(StringColumn(numbered(10)), "document")
    assert ("encode", 10) in events
    assert sum(step for step in events if isinstance(step, int)) == 10


# ---- a whole cell, and the configs


def test_a_measured_cell_ranks_as_the_model_behind_the_server(encoder, protocol, server, minilm, tmp_path):
    dataset = folder.read(write_beir(tmp_path / "made"), "made", "test")
    plan = TimingPlan(warmup_documents=2, repeats=2, latency_queries=2)
    retriever = Dense(encoder(protocol, batch_texts=2))
    hosted_, local = (measure(one, dataset, k=10, metrics=["ndcg@10"], plan=plan) for one in (retriever, minilm))
    np.testing.assert_array_equal(hosted_.run.docs, local.run.docs)
    np.testing.assert_allclose(hosted_.run.scores, local.run.scores, atol=1e-6)
    assert hosted_.means == local.means
    assert hosted_.timing.index.counters[""].texts == 4
    assert hosted_.timing.index.counters[""].tokens == tokens_of(list(dataset.corpus.texts))
    assert hosted_.timing.tokens_per_s > 0
    assert hosted_.description.encoders[""].model == "minilm"


def test_a_batch_of_queries_ranks_as_its_queries_alone(encoder, protocol, server):
    retriever = Dense(encoder(protocol))
    retriever.index(Corpus(["a", "b", "c"], ["cats purr", "", "dogs bark"]))
    queries = Queries(["q1", "q2"], ["a cat", ""])
    batch = retriever.search(queries, 3)
    for row in range(2):
        assert batch.hits(row)[0] == retriever.search(queries[row : row + 1], 3).hits(0)[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_names_every_key_and_is_built_without_key_package_or_network(name, monkeypatch):
    for variable in (*VARIABLES.values(), "EMBEDDINGS_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    for package in KINDS:
        monkeypatch.setitem(sys.modules, package, None)
    config = build.composed([f"retriever={name}"])["retriever"]
    assert isinstance(build.construct(config, "retriever"), Dense)
    target = config["encoder"].pop("_target_")
    assert set(config["encoder"]) == set(parameters(build.get_object(target)))
    assert dict(options_of("retriever"))[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_encodes_at_the_server_that_it_is_pointed_to(name, server, minilm, empty_cache, monkeypatch):
    config = build.composed([f"retriever={name}"])["retriever"]
    config["encoder"] |= {"model": "minilm", "base_url": server.address + ("" if "cohere" in name else "/v1")}
    assert_same(build.construct(config, "retriever")._encoder.encode(StringColumn(TEXTS), "document"), minilm)


def test_a_missing_package_is_named_with_its_extra(protocol, monkeypatch):
    monkeypatch.setitem(sys.modules, protocol, None)
    monkeypatch.setenv(VARIABLES[protocol], KEY)
    with pytest.raises(ConfigError) as error:
        KINDS[protocol]("model").encode(StringColumn(["a"]), "query")
    message = str(error.value)
    assert message.startswith(f"the package {protocol} is needed (")
    assert message.endswith(f"): pip install 'retrieval-harness[{protocol}]'")


def test_the_module_itself_imports_neither_package():
    code = "import sys, harness.providers.api; print([name for name in ('openai', 'cohere') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_model_must_be_named_before_a_server_is_asked(server, empty_cache):
    made = api.OpenAIEncoder(None, base_url=f"{server.address}/v1")
    with pytest.raises(ConfigError) as error:
        made.encode(StringColumn(["a"]), "query")
    assert str(error.value) == (
        f"encoder.model is not set; retriever.encoder.model=NAME, one of {server.address}/v1/models"
    )
    assert server.requests == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_texts": 0}, "encoder.batch_texts=0 must be at least 1"),
        ({"batch_texts": 2049}, "encoder.batch_texts=2049: openai takes 2048 at most"),
        ({"batch_tokens": 0}, "encoder.batch_tokens=0 must be at least 1"),
        ({"max_tokens": 0}, "encoder.max_tokens=0 must be at least 1"),
        ({"dimensions": 0}, "encoder.dimensions=0 must be at least 1"),
        ({"concurrency": 0}, "encoder.concurrency=0 must be at least 1"),
        ({"retries": -1}, "encoder.retries=-1 must be at least 0"),
        ({"price_per_million_tokens": -0.1}, "encoder.price_per_million_tokens=-0.1 must be at least 0"),
        ({"timeout_s": 0}, "encoder.timeout_s=0 must be more than 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_asked(settings, message):
    with pytest.raises(ConfigError) as error:
        api.OpenAIEncoder("model", **settings)
    assert str(error.value) == message


def test_a_record_of_vectors_says_what_they_are_of(encoder, server, small_shards, empty_cache):
    """The identity beside cached vectors, as far as a reader of the cache sees it."""
    encoder("cohere").encode(StringColumn(numbered(4)), "document")
    (path,) = empty_cache.rglob("*.safetensors")
    with safe_open(path, framework="numpy") as file:
        identity = json.loads(file.metadata()["identity"])
    assert identity.pop("libraries") == cache._libraries()
    assert identity == {
        "encoder": "cohere",
        "embeddings": ["cohere", versions.EMBEDDINGS["cohere"]],
        "base_url": server.address,
        "model": "minilm",
        "dimensions": None,
        "prompt": "",
        "max_tokens": None,
        "side": "document",
    }
